"""Training of the language model (backbone)."""
