"""Adapters: the same model as a diffusers pipeline, as a transformers model and as ComfyUI nodes."""
