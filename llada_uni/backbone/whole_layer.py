"""A layer of the backbone in one compiled call, where nothing about it is out of the ordinary: a step of a generation on a CPU.

Asked for one by one from Python, the twenty operations of a layer cost a fifth of a short step. Equals `model.Layer` on a
PackedCache to the bit, because the same compiled functions run in the same order (native/layer.h). Not taken: with
gradients, other dtypes, quantized experts, adapters, hooks, pruned caches, or where the calibration chose another form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llada_uni.backbone import forms
from llada_uni.backbone.attention import Attention, Linear
from llada_uni.backbone.cached_attention import PackedCache
from llada_uni.backbone.moe import Experts, MixtureOfExperts, Router, SwiGLU
from llada_uni.backbone.native import products

Layer = Any  # model.Layer; its module imports this one


def compute(layer: Layer, x: Tensor, rotary: tuple[Tensor, Tensor], cache: PackedCache) -> Tensor | None:
    """x [1, N, D] -> [1, N, D], the new keys and values in the caches; None where the layer must be computed step by step."""
    if not (forms.is_native(x, *rotary) and _is_plain(layer)):
        return None
    attention, mlp = layer.attention, layer.mlp
    network = mlp.experts if isinstance(mlp, MixtureOfExperts) else mlp
    assert isinstance(network, (Experts, SwiGLU))  # _is_plain
    weights = _weights(network)
    linears = [attention.query_key_value.weight, attention.dense.weight]
    if isinstance(mlp, MixtureOfExperts):
        linears.append(mlp.gate.weight)
        weights += _weights(mlp.shared_experts)
    if not forms.is_native(x, *weights, *linears) or not all(map(forms.is_native_linear, linears)):
        return None
    if isinstance(mlp, MixtureOfExperts) and not forms.is_native_experts(mlp.gate.top_k, *weights[:3]):
        return None
    if not cache.is_native(attention.heads, attention.groups, attention.head_dim):
        return None
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    scale = attention.head_scale()
    found = products.LayerWeights(
        norms[0].weight.data_ptr(), norms[1].weight.data_ptr(), scale.data_ptr(), None,
        *(products.stored(weight) for weight in linears[:2]),
        heads=attention.heads, groups=attention.groups, width=attention.head_dim, turned=rotary[0].shape[-1],
        eps=attention.eps,
    )  # fmt: skip
    names = ("gate", "up", "down", "shared_gate", "shared_up", "shared_down")
    for name, weight in zip(names, weights, strict=False):
        setattr(found, name, products.stored(weight))
    if isinstance(mlp, MixtureOfExperts):
        gate = mlp.gate
        found.router, found.router_bias = products.stored(gate.weight), gate.expert_bias.data_ptr()
        found.top_k, found.router_groups, found.kept_groups = gate.top_k, gate.groups, gate.kept_groups
        found.normalized, found.scaling = gate.normalize, gate.scaling
    return products.layer(found, x, rotary, cache.sequences(), attention.layer)


def _weights(network: Experts | SwiGLU) -> list[Tensor]:
    """gate, up and down."""
    parts = (network.gate_proj, network.up_proj, network.down_proj)
    return [part if isinstance(part, Tensor) else part.weight for part in parts]


def _is_plain(layer: Layer) -> bool:
    """Whether all parts are the backbone's own, in float32, and nobody listens to them."""
    attention, mlp = layer.attention, layer.mlp
    parts: list[nn.Module] = [attention, attention.query_key_value, attention.dense, mlp]
    kinds: list[type] = [Attention, Linear, Linear]
    if type(mlp) is MixtureOfExperts:
        shared = mlp.shared_experts
        parts += [mlp.gate, mlp.experts, shared, shared.gate_proj, shared.up_proj, shared.down_proj]
        kinds += [MixtureOfExperts, Router, Experts, SwiGLU, Linear, Linear, Linear]
        if type(mlp.experts) is not Experts or mlp.experts.path != "grouped" or mlp.gate.expert_bias.dtype != torch.float32:
            return False
    elif type(mlp) is SwiGLU:
        parts += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        kinds += [SwiGLU, Linear, Linear, Linear]
    else:
        return False
    parts += [layer.input_layernorm, layer.post_attention_layernorm]
    heard = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    own = all(type(part) is kind for part, kind in zip(parts, kinds, strict=False))
    same = layer.input_layernorm.eps == layer.post_attention_layernorm.eps == attention.eps
    return own and same and not heard
