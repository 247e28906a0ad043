"""What only the small world trains with: its tokenizer, named codes, fitted heads."""
