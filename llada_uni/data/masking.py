"""Noising: a token record -> rows for block diffusion, exactly as generation will see each block.

A record is one conversation: ids, and for each place its kind (kinds.py). What the model writes or draws in one go is a
stretch of TEXT or CODE places. While it works on a block of a stretch, it sees that block and the final tokens of the blocks
before (arXiv:2604.20796). A `View` is the block as it stands then:
- drawing: the block up to the last code of the image, because exactly H*W codes are asked for and nothing stands behind;
- writing: the whole block. What the record has behind the stretch is not written yet, so those places are filled with end of
  text, learned with a small weight: there an answer that is over says so once more.
So no place ever sees what comes later in its own block: a block that holds words, an image and more words has three views.

A row is the clean record up to its last view, followed by its views with masks in them; inside a row a place sees the clean
blocks before its own, and its own block in its own copy (backbone.masks.may_attend). Nothing else of the two streams x_t and
x_0 of the report is ever looked at, so nothing else is computed: no noised copy of a prompt, no clean copy of the last block,
and for opposite masks no second clean copy.
With `objective: one_block` a row has one view, drawn by its number of places: the plain loss of one block, whose sum over
blocks is the loss of `two_stream`.

n places of a record, w places of a view, m places of a row.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.errors import UserError
from llada_uni.options import AtLeastOne, Share, options


@options
class MaskingOptions:
    """How rows are noised (arXiv:2604.20796, training).

    block: places a block. objective: all views of a sample in one row, or one of them.
    rates: the share of masked places is drawn evenly from this range, per "block" or per "sample" (rate_per), and is at least
    one place a block; everything: share of draws in which all is masked instead. onward: share of draws in which a block of
    words is masked from one of its words on, as it stands while it is written from left to right: by evenly drawn rates, k
    words known and just the next one masked is a case of 1 in (k + 1)(k + 2), so what follows from all of them is learned late.
    closing: share in which the last word and the end alone are masked: in an answer that is worked out, the word that decides.
    complementary: each sample twice, with opposite masks.
    text_share: how often a sample that has both words and codes is used for its words.
    moved: share of samples whose block borders are moved by a random number of places: guidance aligns a shorter prompt to
    the end, so its borders may fall anywhere. tail_weight: weight of the end-of-text filling.
    unconditional: share of the uses of a plain drawing or an edit in which `<uncondition>` stands in place of the user's text,
    for classifier-free guidance; drawn again for every use (shards made before 0.4 do not say where the text stands).
    """

    block: AtLeastOne = 32
    objective: Literal["two_stream", "one_block"] = "two_stream"
    rates: tuple[float, float] = (0.0, 1.0)
    rate_per: Literal["block", "sample"] = "block"
    everything: Share = 0.0
    onward: Share = 0.0
    closing: Share = 0.0
    complementary: bool = False
    text_share: Share = 0.5
    moved: Share = 0.0
    tail_weight: Share = 0.05
    unconditional: Share = 0.1

    def __post_init__(self) -> None:
        low, high = self.rates
        if not 0 <= low <= high <= 1 or high == 0:
            raise UserError(f"masking: rates are {low} to {high}; allowed: a range inside 0 to 1")
        if self.onward + self.closing > 1:
            raise UserError(f"masking: onward and closing are {self.onward + self.closing} together; allowed: at most 1")


@dataclass(frozen=True)
class View:
    """One block at the time it is written or drawn. start: its first place in the record; ids [w]: final tokens;
    weights [w]: 0 where nothing is learned, 1, or the tail's weight.
    """

    start: int
    ids: np.ndarray
    weights: np.ndarray

    @property
    def stop(self) -> int:
        return self.start + len(self.ids)


@dataclass(frozen=True)
class Noised:
    """A view with a mask [w] bool, drawn at `rate`. number: the view's own; copy: 1 for the opposite mask, else 0."""

    view: View
    mask: np.ndarray
    rate: float
    number: int
    copy: int


@dataclass(frozen=True)
class Row:
    """Arrays [m] of one noised sample: tokens with masks, positions in the record, block and view of each place
    (0: clean), copies (1: of the opposite mask), targets (-1: nothing learned), weights (before any re-weighting), the rate
    its view was masked at.

    learnable: summed weight of everything that could have been masked.
    """

    ids: np.ndarray
    positions: np.ndarray
    blocks: np.ndarray
    views: np.ndarray
    copies: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    rates: np.ndarray
    learnable: float
    task: str

    def __len__(self) -> int:
        return len(self.ids)


class Masker:
    """Draws rows from records. mask_id, eos_id: control ids of the text tokenizer; longest: most places of a row."""

    def __init__(self, options: MaskingOptions, mask_id: int, eos_id: int, longest: int) -> None:
        self.options, self.mask_id, self.eos_id, self.longest = options, mask_id, eos_id, longest

    def rows(self, ids: np.ndarray, kinds: np.ndarray, task: str, rng: random.Random) -> list[Row]:
        """The rows of one record: one, or more where it would be too long.

        A record of n places needs n + block places at most for its smallest row; ValueError if that is too long.
        """
        options = self.options
        shift = rng.randrange(options.block) if rng.random() < options.moved else 0
        kind = self._kind(kinds, rng)
        views = views_of(ids, kinds, kind, options.block, shift, self.eos_id, options.tail_weight)
        if options.objective == "one_block":
            views = rng.choices(views, [(view.weights == 1).sum() for view in views])
        rows = [self._row(ids, group, shift, task) for group in self._groups(self._noised(views, kind, rng))]
        return [row for row in rows if row is not None]

    def _kind(self, kinds: np.ndarray, rng: random.Random) -> int:
        """A sample is used for its words or for its codes, never for both (arXiv:2604.20796, training)."""
        has_text, has_code = bool((kinds == TEXT).any()), bool((kinds == CODE).any())
        if not (has_text or has_code):
            raise ValueError("a record in which nothing is learned")
        if has_text and has_code:
            return TEXT if rng.random() < self.options.text_share else CODE
        return TEXT if has_text else CODE

    def _rate(self, rng: random.Random) -> float:
        if rng.random() < self.options.everything:
            return 1.0
        return max(rng.uniform(*self.options.rates), 1 / self.options.block)

    def _noised(self, views: list[View], kind: int, rng: random.Random) -> list[Noised]:
        """A mask for each view, or two opposite ones; at least one place of the sample is masked."""
        options = self.options
        noise = np.random.default_rng(rng.getrandbits(64))
        rates = [self._rate(rng)] * len(views)
        if options.rate_per == "block":
            rates = [self._rate(rng) for _ in views]
        masks = [(view.weights > 0) & (noise.random(len(view.ids)) < rate) for view, rate in zip(views, rates, strict=True)]
        for i, view in enumerate(views) if options.onward + options.closing and kind == TEXT else ():
            drawn = rng.random()
            if drawn < options.onward + options.closing:
                masks[i] = _closing(view) if drawn < options.closing else _onward(view, rng)
                rates[i] = float(masks[i].sum() / (view.weights > 0).sum())
        if not any(mask.any() for mask in masks):
            masks[0][noise.choice(np.flatnonzero(views[0].weights == 1))] = True
        found = []
        for number, (view, mask, rate) in enumerate(zip(views, masks, rates, strict=True)):
            found.append(Noised(view, mask, rate, number, 0))
            if options.complementary:
                opposite = max(1 - rate, 1 / options.block)
                found.append(Noised(view, (view.weights > 0) & ~mask, opposite, number, 1))
        return found

    def _groups(self, parts: list[Noised]) -> list[list[Noised]]:
        """Shared out to as few rows as hold them, each with the clean places before its last view."""
        groups: list[list[Noised]] = []
        held = 0
        for part in parts:
            size = len(part.mask)
            if not groups or part.view.start + held + size > self.longest:
                groups.append([])
                held = 0
            groups[-1].append(part)
            held += size
            if part.view.start + held > self.longest:
                raise ValueError(f"a view that ends at place {part.view.stop} does not fit into a row of {self.longest}")
        return groups

    def _row(self, ids: np.ndarray, group: list[Noised], shift: int, task: str) -> Row | None:
        """The clean places and the masked views of `group`; views without a mask are left out, None without any."""
        parts = [part for part in group if part.mask.any()]
        if not parts:
            return None
        clean = parts[-1].view.start
        sizes = [clean, *(len(part.mask) for part in parts)]

        mask = np.concatenate([np.zeros(clean, bool), *(part.mask for part in parts)])
        tokens = np.concatenate([ids[:clean], *(part.view.ids for part in parts)]).astype(np.int64)
        weights = np.concatenate([np.zeros(clean), *(part.view.weights for part in parts)])
        positions = np.concatenate([np.arange(clean), *(np.arange(p.view.start, p.view.stop) for p in parts)])
        return Row(
            ids=np.where(mask, self.mask_id, tokens),
            positions=positions,
            blocks=(positions + shift) // self.options.block,
            views=np.repeat([0, *(2 * part.number + part.copy + 1 for part in parts)], sizes),
            copies=np.repeat([0, *(part.copy for part in parts)], sizes),
            targets=np.where(mask, tokens, -1),
            weights=np.where(mask, weights, 0.0).astype(np.float32),
            rates=np.repeat([1.0, *(part.rate for part in parts)], sizes).astype(np.float32),
            learnable=float(sum(part.view.weights.sum() for part in group)),
            task=task,
        )


def _onward(view: View, rng: random.Random) -> np.ndarray:
    """A mask [w] of all that is learned from one of the view's words on."""
    first = rng.choice(np.flatnonzero(view.weights == 1).tolist())
    return (view.weights > 0) & (np.arange(len(view.ids)) >= first)


def _closing(view: View) -> np.ndarray:
    """A mask [w] of the view's last two places, which are a word and the end where a stretch ends, and of the filling."""
    return (view.weights > 0) & (np.arange(len(view.ids)) >= np.flatnonzero(view.weights == 1)[-2:][0])


def stretches(kinds: np.ndarray, kind: int) -> list[tuple[int, int]]:
    """(first place, place after the last) of every run of `kind`."""
    inside = np.concatenate([[False], kinds == kind, [False]])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def views_of(
    ids: np.ndarray, kinds: np.ndarray, kind: int, block: int, shift: int, eos_id: int, tail_weight: float
) -> list[View]:
    """Every block of every stretch of `kind` (TEXT or CODE), in order. Place p lies in block (p + shift) // block."""
    if kind == CONTEXT:
        raise ValueError("context is not learned")
    views = []
    for first, stop in stretches(kinds, kind):
        for border in range((first + shift) // block * block - shift, stop, block):
            start, end = max(border, 0), border + block
            known = min(end, stop)
            tail = end - known if kind == TEXT else 0
            tokens = np.concatenate([ids[start:known], np.full(tail, eos_id, ids.dtype)])
            weights = np.ones(len(tokens), np.float32)
            weights[: max(first - start, 0)] = 0.0
            weights[len(tokens) - tail :] = tail_weight
            views.append(View(start, tokens, weights))
    return views
