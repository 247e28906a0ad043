"""Pictures with words, for training the image tokenizer, the autoencoder and the decoder.

    pictures = open_pictures("my-data/", side=64).draw(random.Random(0), 16)

Conversation records (a picture with all that its records say about it), or a plug-in that makes pictures
on the fly -> `Picture`s of one square size, or of one of several sizes near their own shape. A draw depends on the rng alone.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from llada_uni import plugins
from llada_uni.data.picture_index import NEEDS, PictureIndex
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import open_source
from llada_uni.errors import UserError
from llada_uni.image.geometry import editing_size

SPLITS = ("train", "heldout", "any")
_HELD_OUT = 20  # of records, one picture in so many is held out
MOST_BAD = 100
"""Images that are left out at most, where they are skipped at all, unless told otherwise."""


@dataclass(frozen=True)
class Picture:
    """image: uint8 [height, width, 3]; caption: "" where no record describes it; questions: (question, answer) pairs."""

    image: np.ndarray
    caption: str
    questions: tuple[tuple[str, str], ...]


class PictureSource(Protocol):
    """Endless pictures."""

    def draw(self, rng: random.Random, count: int) -> list[Picture]: ...


def open_pictures(
    source: str, side: int, split: str = "train", need: str | None = None, bad: BadRecords | None = None, cell: int = 0
) -> PictureSource:
    """Pictures of `side` pixels.

    source: a file or folder of conversation records, or the name of a plug-in's images. split: "train" never shows what is
    held out (of records: one picture in twenty, chosen by its name), "heldout" only that, "any" both.
    need: "caption" or "questions" leaves out the pictures of which the records have none. bad: what is done about images that
    cannot be opened (default: the first is an error). cell: sizes of about side x side pixels, whole cells of so many pixels,
    of which each picture gets the one nearest to its shape, and a draw pictures of one size; 0: squares.
    UserError for other names, or when no picture is left.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
    if need not in NEEDS:
        raise UserError(f"pictures can be asked to have a caption or questions, not {need!r}")
    if source in plugins.table("images"):
        if cell:
            raise UserError(f"the images of {source} are squares: keep_shape is for images of records")
        return plugins.load("images", source)(side, split)
    return RecordPictures(source, side, split, need, bad, cell)


class RecordPictures:
    """Pictures of conversation records, opened when drawn; of what is not drawn, only the place is in memory.

    entries: the pictures of the split, with what is said about them.
    """

    def __init__(
        self, source: str, side: int, split: str, need: str | None = None, bad: BadRecords | None = None, cell: int = 0
    ) -> None:
        self.source, self.side, self.cell, self.bad = source, side, cell, bad or BadRecords("stop")
        index = _index(source, need, self.bad.stop, self.bad.most)
        self.bad.found += [line for line in index.bad.found if line not in self.bad.found]
        held_out = -(-len(index) // _HELD_OUT)
        parts = {"train": (held_out, len(index)), "heldout": (0, held_out), "any": (0, len(index))}
        self.entries = index.part(*parts[split])
        self._unusable: set[int] = set()
        if not self.entries:
            wanted = f" with {need}" if need else ""
            raise UserError(f"{source} has no pictures{wanted} in the split {split!r}")

    def draw(self, rng: random.Random, count: int) -> list[Picture]:
        everything = range(len(self.entries))
        while True:
            try:
                among = self._alike[self._sizes[self._usable(rng, everything)]] if self.cell else everything
                return [self._one(rng, among) for _ in range(count)]
            except _NoneLeft:  # of this size
                if len(self._unusable) == len(self.entries):
                    raise UserError(f"{self.source}: no image can be opened; the last one: {self.bad.found[-1]}") from None

    def _one(self, rng: random.Random, among: Sequence[int]) -> Picture:
        """One of the pictures with these numbers; where it turns out to be unusable, another one."""
        while True:
            number = self._usable(rng, among)
            picture, said = self.entries[number]
            try:
                opened = picture.open()
            except UserError as error:
                self._leave_out(number, error)
                continue
            size = self._sizes[number] if self.cell else (self.side, self.side)
            fitted = ImageOps.fit(opened, size, Image.Resampling.BICUBIC)
            return Picture(np.asarray(fitted), rng.choice(said.captions) if said.captions else "", tuple(said.questions))

    def _usable(self, rng: random.Random, among: Sequence[int]) -> int:
        if len(self._unusable) >= len(among) and self._unusable.issuperset(among):
            raise _NoneLeft
        while (number := rng.choice(among)) in self._unusable:
            pass
        return number

    def _leave_out(self, number: int, error: UserError) -> None:
        self._unusable.add(number)
        self.bad.add(f"{self.source}: {self.entries[number].picture.name}", error)

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """(width, height) that each picture gets, from the headers of all of them."""
        cells, sizes = (self.side // self.cell) ** 2, []
        for number, (picture, _) in enumerate(self.entries):
            try:
                width, height = picture.dimensions() if hasattr(picture, "dimensions") else picture.open().size
            except UserError as error:
                self._leave_out(number, error)
                width = height = self.side
            sizes.append(editing_size(height, width, cells, self.cell)[::-1])
        return sizes

    @cached_property
    def _alike(self) -> dict[tuple[int, int], list[int]]:
        """The numbers of the pictures of each size."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, size in enumerate(self._sizes):
            groups[size].append(number)
        return groups


class _NoneLeft(Exception):
    """All pictures of a size turned out to be unusable."""


@lru_cache(maxsize=4)
def _index(source: str, need: str | None, stop: bool, most: int | None) -> PictureIndex:
    return PictureIndex(open_source(source), need, BadRecords("stop" if stop else "skip", most))
