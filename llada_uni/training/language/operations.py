"""How many floating-point operations a micro-batch of the backbone takes, from the sizes of the network.

Two for each weight that a token meets forward, two backward to the inputs, and two more to the weights that are trained
(arXiv:2204.02311, appendix B). Attention's own products are left out: at the lengths trained here they are a few percent.
"""

from __future__ import annotations

from llada_uni.config import BackboneConfig


def weights_met(config: BackboneConfig) -> tuple[int, int]:
    """(weights that every token meets in the layers, weights of the head)."""
    width, heads, inner = config.hidden_size, config.num_attention_heads, config.moe_intermediate_size
    attention = width * config.head_dim * (2 * heads + 2 * config.num_key_value_heads)
    experts = 3 * width * inner * (config.num_experts_per_tok + config.num_shared_experts) + width * config.num_experts
    dense = 3 * width * config.intermediate_size
    layers = sum(attention + (dense if config.is_dense(layer) else experts) for layer in range(config.num_hidden_layers))
    return layers, width * config.vocab_size


def operations(config: BackboneConfig, tokens: int, masked: int, all_trained: bool) -> float:
    """Of one micro-batch: `tokens` positions in the layers, of which `masked` go through the head."""
    layers, head = weights_met(config)
    return float((6 if all_trained else 4) * (layers * tokens + head * masked))
