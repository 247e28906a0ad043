"""Rows of different lengths -> sequences of one length, with attention inside a row and positions that start at 0 in each.

S packed sequences, T places in each, J rows (a row is a segment).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from llada_uni.backbone.masks import Places, packed, packed_flex
from llada_uni.data.masking import Row

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True)
class Batch:
    """ids, positions, targets (-1: nothing learned), segments (-1: padding), blocks, views, copies: int64 [S, T];
    weights, rates: float32 [S, T]; learnable: float32 [J]; tasks: J names. The fields are those of masking.Row.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    segments: Tensor
    blocks: Tensor
    views: Tensor
    copies: Tensor
    weights: Tensor
    rates: Tensor
    learnable: Tensor
    tasks: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved = {f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **moved, tasks=self.tasks)

    def mask(self) -> Tensor | BlockMask:
        """Who may attend to whom: dense [S, 1, T, T] bool on a CPU, a mask of FlexAttention on a GPU."""
        places = Places(self.segments, self.blocks, self.views)
        return packed_flex(places) if self.ids.is_cuda else packed(places)


def to_batch(members: Sequence[Sequence[Row]], length: int, pad_id: int) -> Batch:
    """Rows, already shared out to sequences, as tensors with padding up to `length`. ValueError for a sequence too long."""
    shape = (len(members), length)
    fills = {"ids": pad_id, "positions": 0, "targets": -1, "segments": -1, "blocks": 0, "views": 0, "copies": 0}
    arrays = {name: np.full(shape, fill, np.int64) for name, fill in fills.items()}
    arrays |= {name: np.zeros(shape, np.float32) for name in ("weights", "rates")}
    rows: list[Row] = []
    for s, group in enumerate(members):
        at = 0
        for row in group:
            here = (s, slice(at, at + len(row)))
            for name, array in arrays.items():
                array[here] = len(rows) if name == "segments" else getattr(row, name)
            rows.append(row)
            at += len(row)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Batch(**tensors, learnable=torch.tensor([row.learnable for row in rows]), tasks=tuple(row.task for row in rows))


def fullest(sizes: Sequence[int], room: int) -> list[int]:
    """Which of `sizes` together fill `room` best without going over it: their numbers in order.

    The subset sum, by sets of reachable sums as bits of one number each; of equal fillings the one of earlier sizes.
    """
    within = (1 << (room + 1)) - 1
    reached = [1]
    for size in sizes:
        reached.append((reached[-1] | reached[-1] << size) & within)
    total, chosen = reached[-1].bit_length() - 1, []
    for number in reversed(range(len(sizes))):
        if not reached[number] >> total & 1:  # the sizes before do not make it up
            chosen.append(number)
            total -= sizes[number]
    return chosen[::-1]


def pack(rows: Sequence[Row], length: int, pad_id: int) -> Batch:
    """All rows, in about as few sequences of at most `length` as hold them, filled evenly and no longer than the fullest.

    The longest row goes first, each to the emptiest sequence, so that little of the batch is padding. ValueError for a row of
    more than `length` places.
    """
    ordered = sorted(rows, key=len, reverse=True)
    if ordered and len(ordered[0]) > length:
        raise ValueError(f"a row of {len(ordered[0])} places does not fit into packed sequences of {length}")
    count = max(1, -(-sum(map(len, rows)) // length))
    while True:
        members: list[list[Row]] = [[] for _ in range(count)]
        filled = [0] * count
        for row in ordered:
            emptiest = filled.index(min(filled))
            members[emptiest].append(row)
            filled[emptiest] += len(row)
        if max(filled) <= length:
            return to_batch(members, max(filled), pad_id)
        count += 1
