"""Data for training: conversation records, their extraction to token shards, and the readers of both."""
