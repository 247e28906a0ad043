"""Evaluation on the small world: suites of samples whose answers the world's checker judges."""
