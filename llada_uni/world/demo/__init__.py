"""The demonstration: every task once, and a page about it."""
