"""The names of the backbone's tensors, as one table: the released layout (one tensor an expert) and ours
(stacked).

A config -> the rows of the table that this model has -> for either layout, every name
with its shape, and for every stacked name the released names it is made of. Loading, saving, converting and
counting all read this table. Axes: V vocabulary, D width, Q query-key-value rows, O attention output columns,
d head width, F dense inner width, E experts, I expert inner width, S inner width of the shared experts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llada_uni.errors import UserError

if TYPE_CHECKING:
    from llada_uni.backbone.quantized_formats import Scheme
    from llada_uni.config import BackboneConfig

Layout = Literal["released", "stacked"]


@dataclass(frozen=True)
class Row:
    """One kind of tensor. `{n}` is the layer, `{e}` the expert; `axes` names the shape in our layout.

    A row whose released name has `{e}` is stacked: our tensor has the experts as its first axis, E.
    """

    ours: str
    released: str
    axes: str
    where: Literal["once", "layer", "dense", "sparse"] = "layer"


def _same(name: str, axes: str, where: Literal["once", "layer", "dense", "sparse"] = "layer") -> Row:
    return Row(name, name, axes, where)


_L = "model.layers.{n}"
TABLE: tuple[Row, ...] = (
    _same("model.word_embeddings.weight", "V D", "once"),
    _same(f"{_L}.input_layernorm.weight", "D"),
    _same(f"{_L}.attention.query_key_value.weight", "Q D"),
    _same(f"{_L}.attention.query_layernorm.weight", "d"),
    _same(f"{_L}.attention.key_layernorm.weight", "d"),
    _same(f"{_L}.attention.dense.weight", "D O"),
    _same(f"{_L}.post_attention_layernorm.weight", "D"),
    _same(f"{_L}.mlp.gate_proj.weight", "F D", "dense"),
    _same(f"{_L}.mlp.up_proj.weight", "F D", "dense"),
    _same(f"{_L}.mlp.down_proj.weight", "D F", "dense"),
    _same(f"{_L}.mlp.gate.weight", "E D", "sparse"),
    _same(f"{_L}.mlp.gate.expert_bias", "E", "sparse"),
    Row(f"{_L}.mlp.experts.gate_proj", f"{_L}.mlp.experts.{{e}}.gate_proj.weight", "E I D", "sparse"),
    Row(f"{_L}.mlp.experts.up_proj", f"{_L}.mlp.experts.{{e}}.up_proj.weight", "E I D", "sparse"),
    Row(f"{_L}.mlp.experts.down_proj", f"{_L}.mlp.experts.{{e}}.down_proj.weight", "E D I", "sparse"),
    _same(f"{_L}.mlp.shared_experts.gate_proj.weight", "S D", "sparse"),
    _same(f"{_L}.mlp.shared_experts.up_proj.weight", "S D", "sparse"),
    _same(f"{_L}.mlp.shared_experts.down_proj.weight", "D S", "sparse"),
    _same("model.norm.weight", "D", "once"),
    _same("lm_head.weight", "V D", "once"),
)
# The router decides in float32 (released configuration: router_dtype fp32), so its tensors are never kept
# coarser.
FLOAT32_SUFFIXES = (".mlp.gate.weight", ".mlp.gate.expert_bias")


@dataclass(frozen=True)
class Place:
    """One tensor of our layout: its name and shape, and the released names it is made of (several: stacked,
    in order)."""

    name: str
    shape: tuple[int, ...]
    released: tuple[str, ...]
    stacked: bool

    @property
    def released_shape(self) -> tuple[int, ...]:
        return self.shape[1:] if self.stacked else self.shape


def axis_sizes(config: BackboneConfig) -> dict[str, int]:
    """The axis letters of this file for a config."""
    heads = config.num_attention_heads
    return {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "Q": (heads + 2 * config.num_key_value_heads) * config.head_dim,
        "O": heads * config.head_dim,
        "d": config.head_dim,
        "F": config.intermediate_size,
        "E": config.num_experts,
        "I": config.moe_intermediate_size,
        "S": config.moe_intermediate_size * config.num_shared_experts,
    }


def places(config: BackboneConfig) -> list[Place]:
    """Every tensor of the backbone in our layout, in the order of the network."""
    sizes = axis_sizes(config)
    found: list[Place] = []

    def add(row: Row, layer: int) -> None:
        shape = tuple(sizes[letter] for letter in row.axes.split())
        stacked = "{e}" in row.released
        experts = range(sizes["E"]) if stacked else range(1)
        released = tuple(row.released.format(n=layer, e=expert) for expert in experts)
        found.append(Place(row.ours.format(n=layer), shape, released, stacked))

    once = [row for row in TABLE if row.where == "once"]
    add(once[0], 0)
    for layer in range(config.num_hidden_layers):
        kind = "dense" if config.is_dense(layer) else "sparse"
        for row in TABLE:
            if row.where in ("layer", kind):
                add(row, layer)
    for row in once[1:]:
        add(row, 0)
    return found


def stacked_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape in our layout."""
    return {place.name: place.shape for place in places(config)}


def released_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape in the released layout."""
    return {name: place.released_shape for place in places(config) for name in place.released}


QUANTIZED_PARTS = ("values", "scale")  # what a stacked tensor consists of when it is quantized


def quantized_shapes(config: BackboneConfig, scheme: Scheme) -> dict[str, tuple[int, ...]]:
    """Name -> shape in our layout, with the experts quantized: two tensors in the place of each stacked one."""
    found: dict[str, tuple[int, ...]] = {}
    for place in places(config):
        if place.stacked:
            parts = scheme.shapes(*place.shape)
            found |= {f"{place.name}.{part}": parts[part][0] for part in QUANTIZED_PARTS}
        else:
            found[place.name] = place.shape
    return found


_STACKED_NAME = re.compile(r"\.mlp\.experts\.(gate|up|down)_proj(\.values|\.scale)?$")
_RELEASED_NAME = re.compile(r"\.mlp\.experts\.\d+\.(gate|up|down)_proj\.weight$")


def layout_of(names: Iterable[str]) -> Layout:
    """Which layout a file's names are in; a model without experts counts as released. UserError for a
    mixture."""
    names = list(names)
    stacked, released = (any(rule.search(name) for name in names) for rule in (_STACKED_NAME, _RELEASED_NAME))
    if stacked and released:
        raise UserError("these weights mix the released and the stacked layout of experts")
    return "stacked" if stacked else "released"
