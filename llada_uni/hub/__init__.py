"""From a hub name ("org/name") to files on this disk: listing, resumed and checked transfers, the client's own cache.

All requests go through `huggingface_hub`, which knows tokens, endpoints, proxies and offline mode; it is imported when it is
first needed. Never fetched: anything but weights, JSON and tokenizer files.
"""
