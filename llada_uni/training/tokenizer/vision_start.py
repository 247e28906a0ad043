"""Fresh weights with which a vision transformer's attention begins near itself, as convolutions do.

Trained transformers have query and key products near the identity, and value and projection products near minus the identity;
with positions by sines that makes attention local from the first step on. A small transformer on few images gains several
points of accuracy by starting so (A. Trockman, Z. Kolter: Mimetic initialization of self-attention layers, arXiv:2305.09828).
D width, H heads, E = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GlmImageVisionModel
from transformers.models.glm_image.modeling_glm_image import GlmImageVisionAttention

_LOCAL, _LOCAL_NOISE = 0.7, 0.7  # of query and key: weight of the identity, deviation of the noise beside it
_PERIODS = 100.0  # longest wave over shortest; grids are small
_VALUE, _VALUE_NOISE = 0.4, 0.4  # of value and projection: the same, with minus the identity


@torch.no_grad()
def start_mimetic(vision: GlmImageVisionModel) -> None:
    """Sets patches, positions, queries, keys, values and projections in place; noise from torch's generator."""
    if next(vision.parameters()).is_meta:
        return
    positions = vision.embeddings.position_embedding.weight
    patches = vision.patch_embed.proj.weight
    patches.normal_(std=patches[0].numel() ** -0.5)  # what is seen counts as much as where
    positions.copy_(_sines(round(len(positions) ** 0.5), positions.shape[1]))
    for block in vision.blocks:
        attention = block.attn
        assert isinstance(attention, GlmImageVisionAttention)
        width, heads = attention.dim, attention.num_heads
        query, key, value = attention.qkv.weight.view(3, width, width).unbind(0)
        for head in range(heads):
            rows = slice(head * (width // heads), (head + 1) * (width // heads))
            left, right = _halves(_LOCAL, _LOCAL_NOISE, width, width // heads)
            query[rows], key[rows] = left.T, right.T
        left, right = _halves(-_VALUE, _VALUE_NOISE, width, width)
        value.copy_(left.T)
        attention.proj.weight.copy_(right)


def _halves(identity: float, noise: float, width: int, rank: int) -> tuple[Tensor, Tensor]:
    """[D, rank] twice, whose product left @ right.T is the best of that rank for identity * I + noise * N(0, 1 / D)."""
    wanted = noise * torch.randn(width, width) / width**0.5 + identity * torch.eye(width)
    u, s, v = torch.linalg.svd(wanted)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, v.T[:, :rank] * root


def _sines(side: int, width: int) -> Tensor:
    """Positions [side * side, D]: half of the entries by sines of the row, half by sines of the column."""
    quarter = width // 4
    rates = _PERIODS ** (-torch.arange(quarter) / quarter)
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, D / 2]
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.nn.functional.pad(torch.cat([rows, columns], dim=2).flatten(0, 1), (0, width - 4 * quarter))
