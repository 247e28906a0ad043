"""The sizes that a backbone can be trained in from nothing: presets, or fields of its config given in the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files import shipped

# What released config files say beside the sizes; other loaders read it.
_RELEASED_NAMES = {
    "architectures": ["LLaDA2MoeModelLM"],
    "model_type": "llada2_moe",
    "router_dtype": "fp32",
    "moe_router_enable_expert_bias": True,
    "torch_dtype": "float32",
    "use_cache": False,
}
_SMALL = {
    **_RELEASED_NAMES,
    "initializer_range": 0.04,
    "rope_theta": 10000,
    "max_position_embeddings": 1024,
    "head_dim": 32,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
}
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        **_SMALL,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "moe_intermediate_size": 64,
    },
    shipped.MODEL: {
        **_SMALL,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "moe_intermediate_size": 160,
    },
    "released_16b": BackboneConfig.released_16b().to_json(),
}
"""smoke: minutes on a CPU; shipped.MODEL: that of the shipped model; released_16b: the released configuration.
Without vocab_size and image_token_offset these come from the data."""


def sizes_of(sizes: str | Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config for the name of a preset, or for fields as they are; {"preset": NAME, ...} changes some of one.

    UserError for an unknown name.
    """
    given: dict[str, Any] = {"preset": sizes} if isinstance(sizes, str) else dict(sizes)
    name = given.pop("preset", None)
    if name is None:
        return {**_RELEASED_NAMES, **given}
    if name not in PRESETS:
        raise UserError(f"sizes: {name!r} is unknown; allowed: {', '.join(PRESETS)}, or fields of config.json")
    return {**PRESETS[name], **given}
