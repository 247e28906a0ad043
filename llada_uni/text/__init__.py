"""Text tokens and the prompts that are put together from them."""
