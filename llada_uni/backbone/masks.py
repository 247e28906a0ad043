"""Attention masks of block diffusion, as pure functions of positions. True = may attend.

A sequence is cut into blocks of `block_length` from position 0 (arXiv:2604.20796; see docs/tour.md). A place
sees all of its own block and every block before it. Positions may be negative (a branch that is aligned to
the end of another sequence): blocks keep the same borders there, floor(position / block_length).
Training packs several samples into one sequence, each with clean places and noised copies of blocks; one rule
(`may_attend`) says who sees whom there, and is given out as a dense mask and as a mask for FlexAttention.
Axes: T query places, S key places, B leading batch axes, which broadcast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def block_index(positions: Tensor, block_length: int) -> Tensor:
    """The number of the block each position lies in, rounding down (also below 0)."""
    return torch.div(positions, block_length, rounding_mode="floor")


def block_causal(positions_q: Tensor, positions_k: Tensor, block_length: int) -> Tensor:
    """[..., T] and [..., S] positions -> [..., T, S] bool: the key's block is not after the query's."""
    return block_index(positions_k, block_length).unsqueeze(-2) <= block_index(positions_q, block_length).unsqueeze(-1)


def block_causal_square(length: int, block_length: int, device: torch.device | str | None = None) -> Tensor:
    """The mask [1, 1, length, length] of one whole sequence that starts at position 0."""
    positions = torch.arange(length, device=device)
    return block_causal(positions, positions, block_length)[None, None]


def same_segment(segments_q: Tensor, segments_k: Tensor) -> Tensor:
    """[..., T] and [..., S] segment numbers -> [..., T, S] bool: both places belong to the same packed
    sample.
    """
    return segments_q.unsqueeze(-1) == segments_k.unsqueeze(-2)


def two_stream(positions: Tensor, block_length: int, segments: Tensor | None = None) -> Tensor:
    """Training mask for a noised copy beside its clean sequence, laid out as [x_t | x_0] (arXiv:2604.20796,
    training).

    positions [..., L] of one copy (both copies carry the same), segments [..., L] for packed samples or None.
    Returns [..., 2L, 2L] bool: a noised block sees itself and the clean blocks before it; clean blocks see
    clean blocks up to themselves; nothing else.
    """
    block = block_index(positions, block_length)
    earlier = block.unsqueeze(-2) < block.unsqueeze(-1)
    own = block.unsqueeze(-2) == block.unsqueeze(-1)
    if segments is not None:
        together = same_segment(segments, segments)
        earlier, own = earlier & together, own & together
    noised = torch.cat((own, earlier), -1)
    clean = torch.cat((torch.zeros_like(own), own | earlier), -1)
    return torch.cat((noised, clean), -2)


class Places(NamedTuple):
    """Where each place of packed training sequences belongs, three tensors [..., T] of whole numbers.

    segments: the sample. blocks: the block in its sample. views: 0 for the clean copy, else the number of the noised
    copy of a block (one view never spans two blocks).
    """

    segments: Tensor
    blocks: Tensor
    views: Tensor


def may_attend(query: Places, key: Places) -> Tensor:
    """The rule of training (arXiv:2604.20796, training): inside a sample, a place sees the clean blocks before its own,
    and of its own block the copy that it belongs to. Broadcasts over the shapes of both.
    """
    earlier = (key.views == 0) & (key.blocks < query.blocks)
    own = (key.views == query.views) & (key.blocks == query.blocks)
    return (key.segments == query.segments) & (earlier | own)


def packed(places: Places) -> Tensor:
    """The rule as a dense mask: places [B, T] -> [B, 1, T, T] bool."""
    query = Places(*(part.unsqueeze(-1) for part in places))
    key = Places(*(part.unsqueeze(-2) for part in places))
    return may_attend(query, key).unsqueeze(-3)


def packed_flex(places: Places, compiled: bool | None = None) -> BlockMask:
    """The rule for FlexAttention: places [B, T] -> a mask that lets it skip the tiles in which nobody sees anybody.

    compiled: whether by a kernel, built once per shape, so that the mask never stands in memory as T x T; None: on a GPU.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return may_attend(Places(*(part[batch, query] for part in places)), Places(*(part[batch, key] for part in places)))

    rows, length = places.segments.shape
    device = places.segments.device
    if compiled is None:
        compiled = device.type == "cuda"
    create = torch.compile(create_block_mask) if compiled else create_block_mask
    return create(rule, rows, None, length, length, device=str(device))
