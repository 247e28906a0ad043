"""What `info --speed` prints: the form in which each product of a backbone is computed on this machine, and how fast each is.

config -> random weights of its shapes, a few experts of a layer -> the measurements that a loaded model would make.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from llada_uni.backbone import calibration, forms
from llada_uni.backbone.native import products
from llada_uni.config import BackboneConfig


@dataclass(frozen=True)
class Measured:
    """One product: its name, the shape of its weights ([O, C]; of experts one matrix), the form that is chosen, milliseconds of
    each form for an open block (of experts some of a layer's, the same for all forms)."""

    name: str
    shape: tuple[int, ...]
    form: str
    milliseconds: dict[str, float]


@torch.inference_mode()
def measure(config: BackboneConfig, dtype: torch.dtype = torch.float32) -> list[Measured]:
    """The products of a backbone of this shape. Other work on the machine slows all forms of the moment."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    width, inner = config.hidden_size, config.moe_intermediate_size
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    shapes = {
        "queries, keys, values": ((heads + 2 * groups) * config.head_dim, width),
        "attention out": (width, heads * config.head_dim),
        "head": (config.vocab_size, width),
    }
    found = [_row(name, shape, forms.ways_of_linear(random(*shape))) for name, shape in shapes.items()]
    count = min(forms.EXPERTS, config.num_experts)
    matrices = [random(count, *shape) for shape in ((inner, width), (inner, width), (width, inner))]
    ways = forms.ways_of_experts(dtype, config.num_experts_per_tok, config.num_experts, *matrices)
    return [*found, _row("experts", (inner, width), ways)]


def _row(name: str, shape: tuple[int, ...], ways: forms.Ways) -> Measured:
    choice = calibration.measure(ways)
    return Measured(name, shape, forms.given() or choice.form, {way: 1e3 * time for way, time in choice.seconds.items()})


def native() -> str:
    """One line about the compiled products: what they were compiled for, or why they are not there."""
    return products.described() if products.available() else f"not compiled: {products.reason()}"
