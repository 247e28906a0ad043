"""Training of the image tokenizer."""
