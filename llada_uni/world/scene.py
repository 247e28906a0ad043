"""A scene: what stands in each of the four cells, on which background. Sampling with seed and split.

Scenes are plain values (frozen dataclasses), so that they can be compared, hashed and written as JSON.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from llada_uni.errors import UserError
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, STYLES

_NAMES = tuple(CONCEPTS)
_COLOR_NAMES = tuple(COLORS)
_COUNT_WEIGHTS = (0.30, 0.34, 0.20, 0.16)


@dataclass(frozen=True)
class Thing:
    """One drawn object: a concept of CONCEPTS in a style of STYLES."""

    concept: str
    style: str


@dataclass(frozen=True)
class Scene:
    """cells: one Thing or None for each of POSITIONS; background: one colour name, or two (left/right or top/bottom).

    axis: None for a plain background, "columns" (left, right) or "rows" (top, bottom) for two tones.
    Raises UserError when names or sizes are not those of the world.
    """

    cells: tuple[Thing | None, ...]
    background: tuple[str, ...] = ("white",)
    axis: str | None = None

    def __post_init__(self) -> None:
        if len(self.cells) != len(POSITIONS):
            raise UserError(f"a scene has {len(POSITIONS)} cells, found {len(self.cells)}")
        for thing in self.cells:
            if thing is not None and (thing.concept not in CONCEPTS or thing.style not in STYLES):
                raise UserError(f"unknown thing {thing.style} {thing.concept}")
        tones = {None: 1, "columns": 2, "rows": 2}.get(self.axis)
        if tones != len(self.background) or any(c not in COLORS for c in self.background):
            raise UserError(f"bad background {self.background} with axis {self.axis}")

    def things(self) -> list[tuple[int, Thing]]:
        """The things with their cell numbers, in order of POSITIONS."""
        return [(i, t) for i, t in enumerate(self.cells) if t is not None]

    def color_of(self, cell: int) -> str:
        """Name of the background colour of cell 0..3."""
        if self.axis is None:
            return self.background[0]
        return self.background[cell % 2 if self.axis == "columns" else cell // 2]

    def replace_cell(self, cell: int, thing: Thing | None) -> Scene:
        """The same scene with another thing (or nothing) in one cell."""
        return replace(self, cells=(*self.cells[:cell], thing, *self.cells[cell + 1:]))

    def with_background(self, color: str) -> Scene:
        """The same things on a plain background."""
        return replace(self, background=(color,), axis=None)

    def to_json(self) -> dict:
        """A JSON-ready dict, read back by `from_json`."""
        cells = [None if t is None else [t.concept, t.style] for t in self.cells]
        return {"cells": cells, "background": list(self.background), "axis": self.axis}

    @staticmethod
    def from_json(data: dict) -> Scene:
        """Inverse of `to_json`."""
        cells = tuple(None if c is None else Thing(*c) for c in data["cells"])
        return Scene(cells, tuple(data["background"]), data["axis"])


def _draw(rng: random.Random, things: int | None, two_tone: float, mixed_styles: float) -> Scene:
    count = things if things is not None else rng.choices((1, 2, 3, 4), _COUNT_WEIGHTS)[0]
    places = rng.sample(range(len(POSITIONS)), count)
    style = rng.choice(STYLES)
    mixed = count > 1 and rng.random() < mixed_styles
    same = count > 1 and rng.random() < 0.25  # several of one kind, for counting
    names = [rng.choice(_NAMES)] * count if same else rng.sample(_NAMES, count)
    if not same and count > 2 and rng.random() < 0.3:
        names[1] = names[0]
    cells: list[Thing | None] = [None] * len(POSITIONS)
    for place, name in zip(places, names, strict=True):
        cells[place] = Thing(name, rng.choice(STYLES) if mixed else style)
    if rng.random() < two_tone:
        return Scene(tuple(cells), tuple(rng.sample(_COLOR_NAMES, 2)), rng.choice(("columns", "rows")))
    return Scene(tuple(cells), (rng.choice(_COLOR_NAMES),))


def sample_scene(
    rng: random.Random,
    split: str = "train",
    things: int | None = None,
    two_tone: float = 0.0,
    mixed_styles: float = 0.3,
) -> Scene:
    """Draws a scene of 1 to 4 things.

    split: "train" or "seen" never holds a held-out combination (see split.py), "heldout" holds at least one,
    "any" is not filtered. two_tone, mixed_styles: probabilities. UserError for another split or count.
    """
    from llada_uni.world.split import is_held_out

    if split not in ("train", "seen", "heldout", "any"):
        raise UserError(f"unknown split {split!r}; known: train, seen, heldout, any")
    if things is not None and not 1 <= things <= len(POSITIONS):
        raise UserError(f"a scene holds 1 to {len(POSITIONS)} things, asked for {things}")
    while True:
        scene = _draw(rng, things, two_tone, mixed_styles)
        if split == "any" or is_held_out(scene) == (split == "heldout"):
            return scene
