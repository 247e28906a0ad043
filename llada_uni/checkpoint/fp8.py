"""Weights that others have stored as float8_e4m3 with scales: their names, their blocks, and back.

The names and shapes in a file -> which scale belongs to which weight, and the block of
weights that one scale is for. Two customs are read: `NAME.weight_scale_inv`, one float32 for each block of
128 x 128 (`weight_block_size` of the config's `quantization_config`; the released FP8 directory marks its
experts with `use_fp8_experts` only), and `NAME.weight_scale`, one for the tensor or one a row. In both the
weight is the stored value times the scale, whatever "inv" suggests. Scales of activations are passed over:
activations are never rounded by them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from llada_uni.backbone.quantized_formats import Quantized, Scheme, dequantize
from llada_uni.errors import UserError
from llada_uni.files.weights import WeightFiles

DEFAULT_BLOCK = (128, 128)
CONFIG_FIELDS = ("quantization_config", "use_fp8_experts")  # what a config says about all this
_SCALE_SUFFIXES = ("_scale_inv", "_scale")
_ACTIVATION_SUFFIXES = (".input_scale", ".activation_scale")


def scale_names(weights: WeightFiles) -> dict[str, str]:
    """float8 weight -> the tensor of its scale. UserError for one that has none."""
    found: dict[str, str] = {}
    for name, dtype in weights.dtypes.items():
        if dtype == torch.float8_e4m3fn and name.endswith(".weight"):
            scale = next((name + end for end in _SCALE_SUFFIXES if name + end in weights), None)
            if scale is None:
                raise UserError(f"{weights.path}: the float8 tensor {name} has no {name}_scale_inv and no {name}_scale")
            found[name] = scale
    return found


def is_activation_scale(name: str) -> bool:
    return name.endswith(_ACTIVATION_SUFFIXES)


def block_scheme(weights: WeightFiles, name: str, scale: str, extra: Mapping[str, Any]) -> Scheme:
    """The scheme of one weight, from the shape of its scale. `extra`: the config's fields beside the sizes.

    UserError when the shapes do not fit each other.
    """
    rows, columns = weights.shapes[name]
    shape = weights.shapes[scale]
    if shape in ((), (1,), (1, 1)):
        return Scheme("float8", None, None)
    if shape in ((rows,), (rows, 1)):
        return Scheme("float8", 1, None)
    high, wide = (extra.get("quantization_config") or {}).get("weight_block_size") or DEFAULT_BLOCK
    if shape != (-(-rows // high), -(-columns // wide)):
        raise UserError(
            f"{weights.path}: {scale} has the shape {list(shape)}, which fits no block of {high} x {wide}, no row and "
            f"no whole of the {rows} x {columns} weights"
        )
    return Scheme("float8", high, wide)


def read(weights: WeightFiles, name: str, scale: str) -> Quantized:
    """A float8 weight [R, C] with its scale as [blocks, blocks] float32."""
    factors = weights.tensor(scale).float()
    factors = factors if factors.dim() == 2 else factors.reshape(-1, 1)
    return Quantized(weights.tensor(name), factors)


def read_dense(weights: WeightFiles, name: str, scale: str, extra: Mapping[str, Any]) -> torch.Tensor:
    """The float32 weight [R, C] that a float8 one stands for."""
    scheme = block_scheme(weights, name, scale, extra)
    return dequantize(read(weights, name, scale), scheme, weights.shapes[name][0])
