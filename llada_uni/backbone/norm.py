"""Root-mean-square normalization, with a backward pass of its own.

x [..., *W] -> x / rms(x over the last axis) * weight [*W].
Axes: D the last (normalized) axis; W the trailing axes that the weight covers ([D], or [H, D] for heads).
On a CPU the framework's composite backward costs several times the forward; the hand-written one keeps only
the normalized x and one number a row (measured on a 6 M parameter model: 3 to 6 % less time a training step).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llada_uni.backbone import forms
from llada_uni.backbone.native import products


def rms_norm_plain(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The definition, in float32 or wider whatever x is: what `rms_norm` must equal."""
    wide = x if x.dtype == torch.float64 else x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * normed.to(x.dtype)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / rms of the last axis [..., 1]. Not vector_norm: on a CPU it adds up naively and loses a digit against this sum."""
    return (x * x).mean(-1, keepdim=True).add_(eps).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        normed = x * scale
        ctx.save_for_backward(normed, weight, scale)
        return normed * weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, weight, scale = ctx.saved_tensors
        product = grad * normed
        grad_weight = product.sum(tuple(range(grad.dim() - weight.dim())))
        mean = product.mul_(weight).sum(-1, keepdim=True).div_(-normed.shape[-1])
        grad_x = (grad * weight).addcmul_(normed, mean).mul_(scale)
        return grad_x, grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize the last axis of x and scale it by `weight` (shape: any trailing axes of x).

    Same numbers as `rms_norm_plain`. Half precision goes there too: its statistics must be float32.
    """
    if x.dtype in (torch.float32, torch.float64) and x.dtype == weight.dtype:
        if torch.is_grad_enabled():
            return _RMSNorm.apply(x, weight, eps)
        if weight.dim() == 1 and forms.is_native(x, weight):
            return products.norm(x, weight, eps)
        return (x * _inverse_rms(x, eps)).mul_(weight)
    return rms_norm_plain(x, weight, eps)


class RMSNorm(nn.Module):
    """RMSNorm over the last axis with one learned scale a feature (released: eps 1e-6)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
