"""Readers of the usual dataset formats: each turns what it finds into conversation records."""
