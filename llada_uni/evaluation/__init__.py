"""Scores answers of a model: suites of plug-ins, any records with text answers, images of any prompt file."""
