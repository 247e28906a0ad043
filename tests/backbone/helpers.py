"""Small backbones for the tests: the recorded one, and ones of any size with random weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from llada_uni.backbone import Backbone
from llada_uni.config import BackboneConfig


def small_config(**changes) -> BackboneConfig:
    """A network of a few thousand parameters with every feature of the released one."""
    values = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "image_token_offset": 24,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "rope_theta": 10000.0,
        "initializer_range": 0.3,
    }
    return BackboneConfig(**{**values, **changes})


def recorded_backbone(directory: Path, experts: str = "grouped") -> Backbone:
    """The recorded backbone, its released per-expert tensors stacked by hand (independent of checkpoint/)."""
    state, single = {}, {}
    for name, tensor in load_file(directory / "model.safetensors").items():
        match = re.fullmatch(r"(.*\.mlp\.experts)\.(\d+)\.(\w+)\.weight", name)
        if match:
            single.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = tensor
        else:
            state[name] = tensor
    for name, tensors in single.items():
        state[name] = torch.stack([tensors[i] for i in range(len(tensors))])
    model = Backbone(BackboneConfig.from_json(directory), experts)
    model.load_state_dict(state, strict=True)
    return model.eval()
