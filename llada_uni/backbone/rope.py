"""Rotary positions on the first part of each head, in the rotate-half form.

position_ids [B, T] -> (cos, sin) [B, T, 1, R] -> applied to heads [B, T, H, d], of which features 0..R-1
turn.
Axes: B batch, T tokens, H heads, d features a head, R rotated features (head_dim * partial_rotary_factor).
Source: arXiv:2604.20796 and the released configuration (factor 0.5, theta 600000).
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_tables(position_ids: Tensor, rotary_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of every position: two tensors [B, T, 1, R] of `dtype`.

    Feature i and feature i + R/2 turn together by position * theta ** (-2 i / R). The first half of the sines
    carries the minus sign of the rotation, so that applying them is one product with the swapped halves.
    Angles are computed in float32, as in the released model, whatever `dtype` is.
    """
    exponent = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=position_ids.device) / rotary_dim
    angle = position_ids[..., None].float() * (1.0 / theta**exponent)  # [B, T, R/2]
    cos, sin = angle.cos(), angle.sin()
    cos = torch.cat((cos, cos), -1).unsqueeze(-2)
    sin = torch.cat((-sin, sin), -1).unsqueeze(-2)
    return cos.to(dtype), sin.to(dtype)


def apply_rotary(heads: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the first R features of every head [B, T, H, d] by its position; the rest passes unchanged."""
    cos, sin = tables
    rotary_dim = cos.shape[-1]
    first, second, rest = heads.split((rotary_dim // 2, rotary_dim // 2, heads.shape[-1] - rotary_dim), -1)
    turning = heads[..., :rotary_dim]
    swapped = torch.cat((second, first), -1)
    return torch.cat((turning * cos + swapped * sin, rest), -1)
