"""A layer of the backbone in one compiled call, where nothing about it is out of the ordinary: a step of a generation on a CPU.

Asked for one by one from Python, the twenty operations of a layer cost a fifth of a short step. Equals `model.Layer` on a
PackedCache to the bit, because the same compiled functions run in the same order (native/layer.h). Not taken: with
gradients, other dtypes, quantized experts, adapters, hooks, pruned caches, or where the calibration chose another form.

What a layer is made of is looked through once; afterwards only whether all of it is still the same.
"""

from __future__ import annotations

from operator import attrgetter, is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from llada_uni.backbone import calibration, forms
from llada_uni.backbone.attention import Attention, Linear
from llada_uni.backbone.cached_attention import PackedCache
from llada_uni.backbone.moe import Experts, MixtureOfExperts, Router, SwiGLU
from llada_uni.backbone.native import products
from llada_uni.backbone.norm import RMSNorm

Layer = Any  # model.Layer; its module imports this one
_DTYPE = attrgetter("dtype")
_UNREAD = ("training", "load")  # what no step of a generation reads

_plans: WeakKeyDictionary[nn.Module, _Plan] = WeakKeyDictionary()


def compute(layer: Layer, x: Tensor, rotary: tuple[Tensor, Tensor], cache: PackedCache) -> Tensor | None:
    """x [1, N, D] -> [1, N, D], the new keys and values in the caches; None where the layer must be computed step by step."""
    if not forms.is_native(x, *rotary):
        _plans.pop(layer, None)  # it would keep weights in memory that a quantized layer, say, has no more
        return None
    plan = _plans.get(layer)
    if plan is None or not plan.holds():
        plan = _plans[layer] = _Plan(layer)
    found = plan.weights
    if found is None or not cache.is_native(found.heads, found.groups, found.width):
        return None
    found.turned = rotary[0].shape[-1]
    return products.layer(found, x, rotary, cache.sequences(), layer.attention.layer)


class _Plan:
    """What is compiled reads of a layer, for as long as all that hangs on `holds`.

    weights: None where the layer must be computed step by step.
    """

    def __init__(self, layer: Layer) -> None:
        self._parts = [part for part in layer.modules() if part is not layer]  # the layer itself is not to be held
        # A module's dictionaries stay the same objects, whoever sets an attribute: looking into them is enough, and fast.
        owners = [layer, *self._parts]
        self._own = [vars(part) for part in self._parts]  # where a `forward` of its own would come in
        places = [place for part in owners for place in (vars(part), part._modules, part._parameters, part._buffers)]
        looked_up = [(place, name) for place in places for name in place if name[0] != "_" and name not in _UNREAD]
        self._where, self._names = [place for place, _ in looked_up], [name for _, name in looked_up]
        self._values = [place[name] for place, name in looked_up]
        self._tensors = [value for value in self._values if isinstance(value, Tensor)]
        self._hooks = [hooks for part in self._parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
        self._state = self._state_now()
        self.weights = None if any(self._hooks) else _weights_of(layer)

    def holds(self) -> bool:
        """Whether layer and settings are what they were when the plan was made."""
        if self._state != self._state_now():
            return False
        return all(map(is_, map(dict.get, self._where, self._names), self._values))

    def _state_now(self) -> tuple[object, ...]:
        tensors = self._tensors
        return (
            _settings(), any(self._hooks), list(map(type, self._parts)), list(map(len, self._own)),
            list(map(Tensor.data_ptr, tensors)), list(map(_DTYPE, tensors)),
        )  # fmt: skip


def _settings() -> tuple[object, ...]:
    """Those that choose the form of a product."""
    return forms.given(), torch.get_num_threads(), calibration.times_forgotten()


def _weights_of(layer: Layer) -> products.LayerWeights | None:
    """Of a layer whose parts are all the backbone's own and computed in the compiled form; None of any other."""
    attention, mlp = layer.attention, layer.mlp
    if not _is_plain(layer):
        return None
    network = mlp.experts if isinstance(mlp, MixtureOfExperts) else mlp
    assert isinstance(network, (Experts, SwiGLU))  # _is_plain
    matrices = _matrices(network)
    linears = [attention.query_key_value.weight, attention.dense.weight]
    if isinstance(mlp, MixtureOfExperts):
        linears.append(mlp.gate.weight)
        matrices += _matrices(mlp.shared_experts)
    vectors = [layer.input_layernorm.weight, layer.post_attention_layernorm.weight]
    vectors += [attention.query_layernorm.weight, attention.key_layernorm.weight]
    if not forms.is_native(*vectors, *matrices, *linears) or not all(map(forms.is_native_linear, linears)):
        return None
    if isinstance(mlp, MixtureOfExperts) and not forms.is_native_experts(mlp.gate.top_k, *matrices[:3]):
        return None
    found = products.LayerWeights(
        *(vector.data_ptr() for vector in vectors), None, *(products.stored(weight) for weight in linears[:2]),
        heads=attention.heads, groups=attention.groups, width=attention.head_dim, eps=attention.eps,
    )  # fmt: skip
    names = ("gate", "up", "down", "shared_gate", "shared_up", "shared_down")
    for name, weight in zip(names, matrices, strict=False):
        setattr(found, name, products.stored(weight))
    if isinstance(mlp, MixtureOfExperts):
        gate = mlp.gate
        found.router, found.router_bias = products.stored(gate.weight), gate.expert_bias.data_ptr()
        found.top_k, found.router_groups, found.kept_groups = gate.top_k, gate.groups, gate.kept_groups
        found.normalized, found.scaling = gate.normalize, gate.scaling
    return found


def _matrices(network: Experts | SwiGLU) -> list[Tensor]:
    """gate, up and down."""
    parts = (network.gate_proj, network.up_proj, network.down_proj)
    return [part if isinstance(part, Tensor) else part.weight for part in parts]


def _is_plain(layer: Layer) -> bool:
    """Whether all parts are the backbone's own, and compute by the definitions of their classes."""
    attention, mlp = layer.attention, layer.mlp
    if type(attention) is not Attention:
        return False
    kinds: dict[nn.Module, type] = {
        attention.query_key_value: Linear, attention.dense: Linear,
        **dict.fromkeys((attention.query_layernorm, attention.key_layernorm), RMSNorm),
        **dict.fromkeys((layer.input_layernorm, layer.post_attention_layernorm), RMSNorm),
    }  # fmt: skip
    if type(mlp) is MixtureOfExperts:
        networks = [mlp.shared_experts]
        kinds |= {mlp.gate: Router, mlp.experts: Experts}
        if type(mlp.experts) is not Experts or mlp.experts.path != "grouped" or mlp.gate.expert_bias.dtype != torch.float32:
            return False
    elif type(mlp) is SwiGLU:
        networks = [mlp]
    else:
        return False
    for network in networks:
        if type(network) is not SwiGLU:
            return False
        kinds |= dict.fromkeys((network.gate_proj, network.up_proj, network.down_proj), Linear)
    own = all(type(part) is kind and "forward" not in vars(part) for part, kind in (kinds | {attention: Attention}).items())
    same = layer.input_layernorm.eps == layer.post_attention_layernorm.eps == attention.eps
    return own and same
