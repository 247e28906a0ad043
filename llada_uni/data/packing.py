"""Rows of different lengths -> sequences of one length, with attention inside a row and positions that start at 0 in each.

S packed sequences, T places in each, J rows (a row is a segment).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
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
    """ids, positions, targets (-1: nothing learnt), segments (-1: padding), blocks, views: int64 [S, T];
    weights, rates: float32 [S, T]; learnable: float32 [J]; tasks: J names. The fields are those of masking.Row.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    segments: Tensor
    blocks: Tensor
    views: Tensor
    weights: Tensor
    rates: Tensor
    learnable: Tensor
    tasks: tuple[str, ...]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in moved.items()})

    def mask(self) -> Tensor | BlockMask:
        """Who may attend to whom: dense [S, 1, T, T] bool on a CPU, a mask of FlexAttention on a GPU."""
        places = Places(self.segments, self.blocks, self.views)
        return packed_flex(places) if self.ids.is_cuda else packed(places)


class Packer:
    """Fills sequences first fit: a row goes into the first that has room. sequences: how many there may be, None for any."""

    def __init__(self, length: int, sequences: int | None = None) -> None:
        self.length, self.sequences = length, sequences
        self.room: list[int] = []
        self.members: list[list[Row]] = []

    def add(self, rows: Sequence[Row]) -> bool:
        """Takes all of `rows`, or, where they do not fit into the sequences there may be, none: then False."""
        room, placed = list(self.room), []
        for row in rows:
            if len(row) > self.length:
                raise ValueError(f"a row of {len(row)} places does not fit into packed sequences of {self.length}")
            place = next((s for s, left in enumerate(room) if left >= len(row)), len(room))
            if place == len(room):
                if place == self.sequences:
                    return False
                room.append(self.length)
            room[place] -= len(row)
            placed.append(place)
        self.members += [[] for _ in range(len(room) - len(self.room))]
        self.room = room
        for row, place in zip(rows, placed, strict=True):
            self.members[place].append(row)
        return True

    def batch(self, pad_id: int) -> Batch:
        """What has been taken so far, padded."""
        shape = (self.sequences or len(self.members), self.length)
        fills = {"ids": pad_id, "positions": 0, "targets": -1, "segments": -1, "blocks": 0, "views": 0}
        arrays = {name: np.full(shape, fill, np.int64) for name, fill in fills.items()}
        arrays |= {name: np.zeros(shape, np.float32) for name in ("weights", "rates")}
        rows: list[Row] = []
        for s, group in enumerate(self.members):
            at = 0
            for row in group:
                here = (s, slice(at, at + len(row)))
                for name, array in arrays.items():
                    array[here] = len(rows) if name == "segments" else getattr(row, name)
                rows.append(row)
                at += len(row)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Batch(**tensors, learnable=torch.tensor([row.learnable for row in rows]), tasks=tuple(row.task for row in rows))


def pack(rows: Sequence[Row], length: int, pad_id: int) -> Batch:
    """All rows, longest first, in as many sequences of `length` as they take. ValueError for a row that is longer."""
    packer = Packer(length)
    packer.add(sorted(rows, key=len, reverse=True))
    return packer.batch(pad_id)
