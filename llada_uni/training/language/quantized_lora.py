"""Adapters on experts that stay quantized while they are trained (QLoRA, arXiv:2305.14314): no plain copy of them is ever made.

    backbone = load_backbone("model-int4"); adapt_quantized_experts(backbone, rank=8, alpha=16)

Rows of the tokens, sorted by expert -> the product with the quantized weights, one expert at a time -> beside
it the two thin products of the adapter -> their sum. The backward pass takes an expert's weights back once more to carry the
gradient to the rows; quantized weights have none of their own, so nothing but the rows' places is kept for it.
The adapters have the shapes in which peft keeps them for a stack of plain experts, so files of both are the same.

M (token, expert) pairs sorted by expert, E experts, R rows (features out) and C columns (in) of a matrix, r rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from llada_uni.backbone import Backbone
from llada_uni.backbone.grouped import Segments, combine, dispatch, grouped_linear, sort_by_expert
from llada_uni.backbone.moe import MixtureOfExperts, Routing
from llada_uni.backbone.quantized import MATRICES, QuantizedExperts, QuantizedMatrix


class _QuantizedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: QuantizedMatrix, segments: Segments) -> Tensor:
        ctx.matrix, ctx.segments = matrix, segments
        if rows.dtype == torch.bfloat16:  # what the kernels of a processor compute in
            return matrix(rows, segments)
        out = rows.new_empty(rows.shape[0], matrix.rows)
        for expert, start, end in busy(segments):
            torch.mm(rows[start:end], matrix.weight(expert, rows.dtype).t(), out=out[start:end])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        out = grad.new_empty(grad.shape[0], ctx.matrix.columns)
        for expert, start, end in busy(ctx.segments):
            torch.mm(grad[start:end], ctx.matrix.weight(expert, grad.dtype), out=out[start:end])
        return out, None, None


def quantized_linear(rows: Tensor, matrix: QuantizedMatrix, segments: Segments) -> Tensor:
    """rows [M, C] sorted by expert, each times its own expert's matrix, transposed -> [M, R]; gradients reach the rows."""
    return _QuantizedLinear.apply(rows, matrix, segments)


def busy(segments: Segments) -> list[tuple[int, int, int]]:
    """(expert, first row, row after the last) of the experts with work; on a GPU this waits for the sorting."""
    ends = segments.ends.tolist()
    return [(e, a, b) for e, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True)) if b > a]


class QuantizedLoraExperts(nn.Module):
    """Quantized experts with adapters: `lora_A` [r * E, C] and `lora_B` [R, r * E] for each of the three matrices, as peft
    keeps them. The quantized weights are no part of the state dict: they come from the model directory again."""

    def __init__(self, base: QuantizedExperts, rank: int, alpha: float) -> None:
        super().__init__()
        self.base_layer, self.rank, self.scaling = base, rank, alpha / rank
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        for name in MATRICES:
            matrix = self.matrix(name)
            matrix._non_persistent_buffers_set.update(matrix._buffers)
            device = matrix.values.device
            self.lora_A[name] = nn.Parameter(torch.zeros(rank * matrix.experts, matrix.columns, device=device))
            self.lora_B[name] = nn.Parameter(torch.zeros(matrix.rows, rank * matrix.experts, device=device))

    def matrix(self, name: str) -> QuantizedMatrix:
        """One of MATRICES."""
        found = getattr(self.base_layer, name)
        assert isinstance(found, QuantizedMatrix)
        return found

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [N, D] -> [N, D]: every token's weighted sum over its experts, as `moe.plain_experts` of the merged weights."""
        segments = sort_by_expert(routing.experts, self.matrix(MATRICES[0]).experts)
        rows = dispatch(x, segments)
        inner = F.silu(self._product("gate_proj", rows, segments)) * self._product("up_proj", rows, segments)
        return combine(self._product("down_proj", inner, segments), routing.weights.to(x.dtype), segments)

    def _product(self, name: str, rows: Tensor, segments: Segments) -> Tensor:
        down, up = self.lora_A[name], self.lora_B[name]
        first = down.view(-1, self.rank, down.shape[1])  # [E, r, C]
        second = up.view(up.shape[0], self.rank, -1).permute(2, 0, 1).contiguous()  # [E, R, r]
        thin = grouped_linear(grouped_linear(rows.to(down.dtype), first, segments), second, segments)
        return quantized_linear(rows, self.matrix(name), segments) + (self.scaling * thin).to(rows.dtype)


def adapt_quantized_experts(backbone: Backbone, rank: int, alpha: float) -> None:
    """Puts adapters, all zeros, on the quantized experts of every layer, in place."""
    for layer in backbone.model.layers:
        if isinstance(layer.mlp, MixtureOfExperts) and isinstance(layer.mlp.experts, QuantizedExperts):
            layer.mlp.experts = QuantizedLoraExperts(layer.mlp.experts, rank, alpha)


def delta(down: Tensor, up: Tensor, rank: int, expert: int) -> Tensor:
    """What an adapter (peft's shapes, before scaling) adds to one expert: [R, C] float32."""
    first = down.view(-1, rank, down.shape[1])[expert].float()
    second = up.view(up.shape[0], rank, -1)[:, :, expert].float()
    return second @ first
