"""The compiled products."""
