"""Routed experts whose weights stay in one byte or half a byte while they compute.

A backbone built as usual -> `use_quantized_experts` puts a `QuantizedExperts` in the place of every layer's experts
-> its buffers are filled from a checkpoint (checkpoint/quantize.py). Same answer as `moe.plain_experts` on the
dequantized weights, up to the rounding of bfloat16.
Axes: N tokens, M (token, expert) pairs sorted by expert, E experts, R rows (features out), C columns (features
in), D width, I inner features.

On a CPU few rows meet each expert, so a step costs what reading the weights costs: torch's int8 and int4
kernels read them once and multiply in bfloat16. Many rows (a prompt), float8, and processors those kernels do
not know take one expert's weights back to the dtype of the rows and multiply as usual. On a GPU a few experts
at a time are taken back, or, float8 with a scale a row, none at all. The whole tensor never is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.backbone import forms
from llada_uni.backbone.grouped import Segments, combine, dispatch, sort_by_expert
from llada_uni.backbone.model import Backbone
from llada_uni.backbone.moe import MixtureOfExperts, Routing
from llada_uni.backbone.native import products
from llada_uni.backbone.native.products import Matrices
from llada_uni.backbone.quantized_formats import Quantized, Scheme, dequantize, quantize
from llada_uni.config import BackboneConfig

MATRICES = ("gate_proj", "up_proj", "down_proj")
# Beyond so many rows an expert, taking its weights back once is faster than the kernel (AVX512, 512 x 2048).
KERNEL_ROWS = {"int8": 32, "int4": 64}
INT8_ALIGNMENT = 16  # bytes: torch's int8 kernel crashes where a row of weights does not start at a multiple
GPU_CHUNK = 32  # experts taken back at a time on a GPU: 64 MB of bfloat16 at the released size


class QuantizedMatrix(nn.Module):
    """E matrices [R, C] in the form of `scheme`: buffers `values` and `scale` (quantized_formats.py)."""

    values: Tensor
    scale: Tensor

    def __init__(self, scheme: Scheme, experts: int, rows: int, columns: int) -> None:
        super().__init__()
        self.scheme, self.experts, self.rows, self.columns = scheme, experts, rows, columns
        for name, (shape, dtype) in scheme.shapes(experts, rows, columns).items():
            self.register_buffer(name, torch.empty(shape, dtype=dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedMatrix:
        """Moves with the model, but keeps its dtypes when the model is told to change its own."""
        for name, buffer in self._buffers.items():
            assert buffer is not None  # both are filled from the start
            device = fn(buffer[:0]).device
            if device != buffer.device:  # a mapped file stays one
                self._buffers[name] = torch.empty_like(buffer, device=device).copy_(buffer)
        return self

    def put(self, expert: int, weight: Tensor) -> None:
        """Quantize `weight` [R, C] into the place of one expert."""
        self.put_stored(expert, quantize(weight, self.scheme))

    def put_stored(self, expert: int, stored: Quantized) -> None:
        """Copy one expert that is quantized already."""
        self.values[expert].copy_(stored.values)
        self.scale[expert].copy_(stored.scale)

    def matrices(self) -> Matrices:
        """As the compiled products read them."""
        group = self.scheme.block(self.rows, self.columns)[1]
        return Matrices(self.values, self.rows, self.columns, self.scale, group)

    def weights(self, first: int, last: int) -> Tensor:
        """What experts first..last-1 stand for: [last - first, R, C] float32."""
        stored = Quantized(self.values[first:last], self.scale[first:last])
        return dequantize(stored, self.scheme, self.rows)

    def weight(self, expert: int, dtype: torch.dtype) -> Tensor:
        """What one expert stands for, [R, C] in the dtype that rows are multiplied in."""
        ours = forms.given() in (None, "native") and products.available()
        if ours and self.scheme.format == "int4" and dtype in products.INPUTS and products.takes(self.scale, self.values):
            return products.plain(self.matrices(), expert, dtype)
        return self.weights(expert, expert + 1)[0].to(dtype)

    def forward(self, rows: Tensor, segments: Segments) -> Tensor:
        """rows [M, C] sorted by expert, each times its own expert's matrix, transposed -> [M, R], same dtype."""
        if rows.is_cuda:
            scaled = self.scheme == Scheme("float8") and torch.cuda.get_device_capability(rows.device) >= (9, 0)
            return self._scaled_product(rows, segments.ends) if scaled else self._chunked(rows, segments.ends)
        out = rows.new_empty(rows.shape[0], self.rows)
        for expert, start, end in segments.busy or ():
            out[start:end] = self._product(expert, rows[start:end])
        return out

    def _product(self, expert: int, rows: Tensor) -> Tensor:
        if rows.shape[0] <= KERNEL_ROWS.get(self.scheme.format, 0):
            if self.scheme.format == "int4" and has_int4_kernel():
                values = self.values[expert].view(-1, self.columns // 2)
                group = self.scheme.block(self.rows, self.columns)[1]
                kernel = torch.ops.aten._weight_int4pack_mm_for_cpu
                return kernel(rows.bfloat16(), values, group, self.scale[expert])[:, : self.rows]
            if self.scheme.format == "int8" and is_aligned(self.values) and self.columns % INT8_ALIGNMENT == 0:
                return torch._weight_int8pack_mm(rows.bfloat16(), self.values[expert], self.scale[expert, :, 0])
        return rows @ self.weight(expert, rows.dtype).t()

    def _chunked(self, rows: Tensor, ends: Tensor) -> Tensor:
        """A few experts' weights at a time, each chunk one grouped product."""
        out = rows.new_empty(rows.shape[0], self.rows)
        listed = [0, *ends.tolist()]
        for first in range(0, self.experts, GPU_CHUNK):
            last = min(first + GPU_CHUNK, self.experts)
            start, end = listed[first], listed[last]
            if end > start:
                weights = self.weights(first, last).to(rows.dtype)
                out[start:end] = torch._grouped_mm(rows[start:end], weights.mT, offs=ends[first:last] - start)
        return out

    def _scaled_product(self, rows: Tensor, ends: Tensor) -> Tensor:
        """In float8 throughout: the rows are rounded too, each with its own scale."""
        stored = quantize(rows, self.scheme)
        out = torch._scaled_grouped_mm(
            stored.values, self.values.mT, stored.scale[:, 0], self.scale[..., 0], offs=ends, out_dtype=torch.bfloat16
        )
        return out.to(rows.dtype)


class QuantizedExperts(nn.Module):
    """All routed experts of a layer: gate_proj and up_proj [I, D], down_proj [D, I], each E times."""

    def __init__(self, config: BackboneConfig, scheme: Scheme) -> None:
        super().__init__()
        experts, inner, width = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.scheme = scheme
        self.gate_proj = QuantizedMatrix(scheme, experts, inner, width)
        self.up_proj = QuantizedMatrix(scheme, experts, inner, width)
        self.down_proj = QuantizedMatrix(scheme, experts, width, inner)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]: every token's weighted sum over its experts. No gradients."""
        if self._is_native(x):
            return products.experts(x, routing.weights, routing.experts, *(m.matrices() for m in self._all()))
        segments = sort_by_expert(routing.experts, self.gate_proj.experts)
        rows = dispatch(x, segments)  # [M, D]
        inner = F.silu(self.gate_proj(rows, segments)) * self.up_proj(rows, segments)
        return combine(self.down_proj(inner, segments), routing.weights.to(x.dtype), segments)

    def _all(self) -> tuple[QuantizedMatrix, QuantizedMatrix, QuantizedMatrix]:
        return self.gate_proj, self.up_proj, self.down_proj

    def _is_native(self, x: Tensor) -> bool:
        """Whether the compiled products compute it: int8 with a scale a row, and int4, on a CPU."""
        by_row = self.scheme == Scheme("int8") or self.scheme.format == "int4"
        if not by_row or forms.given() not in (None, "native") or (torch.is_grad_enabled() and x.requires_grad):
            return False
        parts = (part for matrix in self._all() for part in (matrix.values, matrix.scale))
        return products.takes(x, *parts) and products.available()


def use_quantized_experts(backbone: Backbone, scheme: Scheme) -> Backbone:
    """Puts empty quantized experts in the place of the backbone's own, on the device of its head; the same object.

    UserError for sizes that the format does not take.
    """
    with backbone.lm_head.weight.device:
        for layer in backbone.model.layers:
            if isinstance(layer.mlp, MixtureOfExperts):
                layer.mlp.experts = QuantizedExperts(backbone.config, scheme)
    return backbone


def scheme_of(backbone: Backbone) -> Scheme | None:
    """How the routed experts of a backbone are held; None when they are plain tensors."""
    found = (module.scheme for module in backbone.modules() if isinstance(module, QuantizedExperts))
    return next(found, None)


def is_aligned(values: Tensor) -> bool:
    """Whether the memory of `values` starts where the int8 kernel can read it; a mapped tensor's may not."""
    return values.data_ptr() % INT8_ALIGNMENT == 0


@cache
def has_int4_kernel() -> bool:
    """Whether this processor's int4 kernel reads the order in which the values are stored (AVX512 does)."""
    if not hasattr(torch.ops.aten, "_convert_weight_to_int4pack_for_cpu"):
        return False
    weight = (torch.arange(64 * 32) * 7 % 16).view(64, 32)  # no two bytes in a row alike
    theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight.int(), 1)
    low, high = weight.to(torch.uint8).chunk(2)
    return torch.equal(theirs.flatten(), (low | (high << 4)).t().flatten())
