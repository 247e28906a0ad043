"""Token records to packed, masked batches: the block-diffusion objective without a doubled sequence.

For one sample, one block with something to write is picked; the blocks before it stay clean, the blocks after it are
dropped. Under block-causal attention this is exactly the term of that block in the objective of arXiv:2604.20796
(section on training; x_t beside x_0 gives all blocks at once). A picked block is noised in one of two ways:
- draw: only the codes of one image are masked; text before it is given, and the sequence ends with the image, as it does
  when the caller asks for exactly H*W codes;
- write: from the start of a stretch of text on, everything the model may write in this block is masked at one rate; the
  places after the end of text are filled with end of text, and count little.
A row's summed loss counts by one over the root of its masked places (loss re-weighting of the report's fine-tuning).
Every sample gives two rows with opposite masks (complementary masks), so that each place is learnt once a pair.
A few samples have their block borders moved: guidance aligns a shorter prompt to the end, so its borders may fall anywhere.
Rows are packed into sequences of a fixed length; attention stays inside a sample, positions start at 0 in each.

S packed sequences, T places in each.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CONTEXT, TEXT, CODE = 0, 1, 2
_TAIL_WEIGHT = 0.05
_MOVED_SHARE = 0.15


@dataclass
class Row:
    """One noised sequence: ids with masks, targets (-1 where nothing is learnt), weights; all of one length.

    shift: how far the block borders are moved; place p is in block (p + shift) // block.
    """

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    shift: int = 0


@dataclass
class Batch:
    """ids, positions, targets int64 [S, T]; weights float32 [S, T]; attention bool [S, 1, T, T] (True: may attend)."""

    ids: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor
    attention: Tensor


class Masker:
    """Draws rows from records. block: places a block; mask_id, eos_id: control ids of the text tokenizer."""

    def __init__(self, block: int, mask_id: int, eos_id: int) -> None:
        self.block, self.mask_id, self.eos_id = block, mask_id, eos_id

    def rows(self, ids: np.ndarray, kinds: np.ndarray, rng: random.Random) -> list[Row]:
        """One or two rows of one record (two with opposite masks unless everything was masked)."""
        wanted = np.flatnonzero(kinds != CONTEXT)
        # A place drawn evenly among the wanted ones picks its block with the right weight, and how to noise it.
        place = int(wanted[rng.randrange(len(wanted))])
        shift = rng.randrange(self.block) if rng.random() < _MOVED_SHARE else 0
        start = (place + shift) // self.block * self.block - shift
        if kinds[place] == CODE:
            ids, kinds, open_places, after = self._draw(ids, kinds, place, start)
        else:
            ids, kinds, open_places, after = self._write(ids, kinds, place, start)
        everything = rng.random() < 0.25
        rate = 1.0 if everything else rng.random()
        noise = np.random.default_rng(rng.getrandbits(32)).random(len(open_places))
        chosen = noise < rate
        weights = np.where(np.arange(len(ids)) < after, 1.0, _TAIL_WEIGHT).astype(np.float32)
        rows = []
        for mask in (chosen, ~chosen):
            if mask.any():
                rows.append(self._row(ids, open_places[mask], weights, shift))
        return rows

    def _draw(self, ids, kinds, place, start):
        first = place
        while kinds[first - 1] == CODE:
            first -= 1
        last = place
        while last + 1 < len(kinds) and kinds[last + 1] == CODE:
            last += 1
        stop = min(last + 1, start + self.block)
        return ids[:stop], kinds[:stop], np.arange(max(first, start), stop), stop

    def _write(self, ids, kinds, place, start):
        first = place
        while first > max(start, 0) and kinds[first - 1] == TEXT:
            first -= 1
        stop = start + self.block
        end = min(stop, len(ids))
        out = np.full(stop, self.eos_id, ids.dtype)
        out[:end] = ids[:end]
        kind = np.full(stop, TEXT, kinds.dtype)
        kind[:end] = kinds[:end]
        after = end
        # Behind a whole image in this block comes what the model writes only later: masks that teach nothing.
        closing = np.flatnonzero(kind[first:] == CONTEXT)
        if len(closing):
            out[first + closing[0] :] = self.mask_id
            kind[first + closing[0] :] = CONTEXT
        open_places = first + np.flatnonzero(kind[first:] != CONTEXT)
        return out, kind, open_places, after

    def _row(self, ids, masked, weights, shift) -> Row:
        noised = ids.astype(np.int64)
        targets = np.full(len(ids), -1, np.int64)
        targets[masked] = noised[masked]
        noised[masked] = self.mask_id
        # Loss re-weighting of the report: a sample counts by the root of its masked places, so that an answer of one
        # word is not drowned by sixteen codes.
        return Row(noised, targets, weights / np.sqrt(weights[masked].sum()), shift)


def pack(rows: list[Row], length: int, block: int, pad_id: int) -> Batch:
    """First fit, longest first, into sequences of `length`. A row longer than that is a programming error."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
    room: list[int] = []
    members: list[list[int]] = []
    for i in order:
        size = len(rows[i].ids)
        if size > length:
            raise ValueError(f"a row of {size} places does not fit into packed sequences of {length}")
        for s, left in enumerate(room):
            if left >= size:
                members[s].append(i)
                room[s] -= size
                break
        else:
            members.append([i])
            room.append(length - size)
    shape = (len(members), length)
    ids = np.full(shape, pad_id, np.int64)
    positions = np.zeros(shape, np.int64)
    targets = np.full(shape, -1, np.int64)
    weights = np.zeros(shape, np.float32)
    owner = np.full(shape, -1, np.int64)
    blocks = np.zeros(shape, np.int64)
    for s, group in enumerate(members):
        at = 0
        for i in group:
            row = rows[i]
            here = slice(at, at + len(row.ids))
            ids[s, here], targets[s, here], weights[s, here] = row.ids, row.targets, row.weights
            positions[s, here] = np.arange(len(row.ids))
            owner[s, here] = i
            blocks[s, here] = (positions[s, here] + row.shift) // block
            at += len(row.ids)
    who = torch.from_numpy(owner)
    block_of = torch.from_numpy(blocks)
    same = who[:, :, None] == who[:, None, :]
    attention = (same & (block_of[:, :, None] >= block_of[:, None, :])).unsqueeze(1)
    return Batch(
        torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(targets), torch.from_numpy(weights), attention
    )
