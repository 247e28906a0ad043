"""Copy or link this folder into ComfyUI/custom_nodes; llada-uni must be installed in ComfyUI's environment."""

from llada_uni.adapters.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
