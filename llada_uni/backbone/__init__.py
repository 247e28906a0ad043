"""The backbone: a block-diffusion language model with a mixture of experts; token ids -> logits at wanted
places.
"""

from llada_uni.backbone.cache import KeyValueCache
from llada_uni.backbone.model import Backbone

__all__ = ["Backbone", "KeyValueCache"]
