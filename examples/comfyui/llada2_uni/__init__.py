"""Copy or link this folder into ComfyUI/custom_nodes; llada-uni must be installed in ComfyUI's environment."""

from llada_uni.adapters.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

WEB_DIRECTORY = "./web"  # shows the text of Ask and Story on their nodes

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
