"""The pieces of the grouped expert path, each with a backward pass that only gathers and multiplies.

experts [N, K] -> sort_by_expert -> Segments; x [N, D] -> dispatch -> rows [M, D] in the order of experts
-> grouped_linear (an own weight an expert) -> combine (back in the order of tokens, weighted sum over K) ->
[N, D].
Axes: N tokens, K experts a token, M = N * K pairs, E experts, I and O features in and out of a product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Segments(NamedTuple):
    """Which rows of the sorted pairs belong to which expert."""

    order: Tensor  # [M]: sorted row r is pair order[r], pairs being numbered token * K + k
    inverse: Tensor  # [M]: pair p stands in sorted row inverse[p]
    token: Tensor  # [M]: the token of sorted row r
    ends: Tensor  # [E] int32: first row after each expert's rows

    @property
    def busy(self) -> list[tuple[int, int, int]] | None:
        """(expert, first row, row after the last) of the experts with work; None on a GPU, which would have to wait."""
        return None if self.ends.is_cuda else _busy(self.ends)


def sort_by_expert(experts: Tensor, count: int) -> Segments:
    """Sort the pairs of experts [N, K] by expert, keeping the order of tokens inside one."""
    flat, order = experts.flatten().sort(stable=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    token = torch.div(order, experts.shape[1], rounding_mode="floor")
    # Not bincount: on a GPU that waits for the host, and then no graph can be captured.
    ends = torch.searchsorted(flat, torch.arange(count, device=flat.device), right=True, out_int32=True)
    return Segments(order, inverse, token, ends)


def _busy(ends: Tensor) -> list[tuple[int, int, int]]:
    listed = ends.tolist()
    return [(e, a, b) for e, (a, b) in enumerate(zip([0, *listed[:-1]], listed, strict=True)) if b > a]


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, segments: Segments) -> Tensor:
        ctx.inverse, ctx.shape = segments.inverse, x.shape
        return x.index_select(0, segments.token)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        tokens, width = ctx.shape
        return grad.index_select(0, ctx.inverse).view(tokens, -1, width).sum(1), None


def dispatch(x: Tensor, segments: Segments) -> Tensor:
    """Copy the token rows [N, D] to the sorted pairs [M, D]. Backward gathers instead of scattering."""
    return _Dispatch.apply(x, segments)


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, weights: Tensor, segments: Segments) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.segments = segments
        pairs = segments.inverse.view_as(weights)
        return F.embedding_bag(pairs, rows, per_sample_weights=weights, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weights = ctx.saved_tensors
        segments = ctx.segments
        spread = grad.index_select(0, segments.token)  # [M, D]
        grad_weights = (spread * rows).sum(1).index_select(0, segments.inverse).view_as(weights)
        grad_rows = spread.mul_(weights.flatten().index_select(0, segments.order).unsqueeze(1))
        return grad_rows, grad_weights, None


def combine(rows: Tensor, weights: Tensor, segments: Segments) -> Tensor:
    """Sum the sorted rows [M, D] of each token with its weights [N, K] -> [N, D]."""
    return _Combine.apply(rows, weights, segments)


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, busy: list[tuple[int, int, int]]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.busy = busy
        out = rows.new_empty(rows.shape[0], weight.shape[1])
        for expert, start, end in busy:
            torch.mm(rows[start:end], weight[expert].t(), out=out[start:end])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        grad_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for expert, start, end in ctx.busy:
            part = grad[start:end]
            if grad_rows is not None:
                torch.mm(part, weight[expert], out=grad_rows[start:end])
            if grad_weight is not None:
                torch.mm(part.t(), rows[start:end], out=grad_weight[expert])
        return grad_rows, grad_weight, None


def grouped_linear(rows: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    """Each expert's rows [M, I] times its own weight [E, O, I], transposed -> [M, O].

    One call of torch where it has a kernel for it; elsewhere a loop over the experts that have rows.
    """
    if _has_kernel(rows, weight):
        return F.grouped_mm(rows, weight.transpose(1, 2), offs=segments.ends)
    return _GroupedLinear.apply(rows, weight, _busy(segments.ends))


def _has_kernel(rows: Tensor, weight: Tensor) -> bool:
    """Whether `grouped_mm` takes these: bfloat16 on a GPU; on a CPU also float32, but not with gradients.

    It wants rows that start at multiples of 16 bytes.
    """
    if any(width * rows.element_size() % 16 for width in weight.shape[1:]) or rows.dtype != weight.dtype:
        return False
    if rows.is_cuda:
        return rows.dtype == torch.bfloat16
    learns = torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad)
    return rows.dtype in (torch.float32, torch.bfloat16) and not learns
