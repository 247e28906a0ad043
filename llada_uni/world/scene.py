"""A scene: what stands in each of the nine cells, on which background. Sampling with seed and split.

Scenes are plain values (frozen dataclasses), so that they can be compared, hashed and written as JSON.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from llada_uni.errors import UserError
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, DIGITS, SIDE, STYLES, THINGS

_COLOR_NAMES = tuple(COLORS)
_COUNT_WEIGHTS = (0.18, 0.26, 0.22, 0.16, 0.10, 0.08)
_CROWD = 0.6
MOST_DIFFERENT = 6
"""Things of different kinds that a scene holds at most; of one kind there may be nine."""


@dataclass(frozen=True)
class Thing:
    """One drawn object: a concept of CONCEPTS in a style of STYLES."""

    concept: str
    style: str


@dataclass(frozen=True)
class Scene:
    """cells: one Thing or None for each of POSITIONS; background: name of a colour.

    Raises UserError when names or sizes are not those of the world.
    """

    cells: tuple[Thing | None, ...]
    background: str = "white"

    def __post_init__(self) -> None:
        if len(self.cells) != len(CELLS):
            raise UserError(f"a scene has {len(CELLS)} cells, found {len(self.cells)}")
        for thing in self.cells:
            if thing is not None and (thing.concept not in CONCEPTS or thing.style not in STYLES):
                raise UserError(f"unknown thing {thing.style} {thing.concept}")
        if self.background not in COLORS:
            raise UserError(f"unknown background {self.background!r}; known: {', '.join(COLORS)}")

    def things(self) -> list[tuple[int, Thing]]:
        """The things with their cell numbers, in order of POSITIONS."""
        return [(i, t) for i, t in enumerate(self.cells) if t is not None]

    def names(self) -> list[str]:
        """The concepts of the things, in order of POSITIONS."""
        return [t.concept for t in self.cells if t is not None]

    def empty(self) -> list[int]:
        """The cells in which nothing stands."""
        return [i for i in CELLS if self.cells[i] is None]

    def number(self) -> str | None:
        """The digits of the scene read as a number, None without any. A number stands in one row, from its left end on."""
        digits = [(i, t.concept) for i, t in self.things() if t.concept in DIGITS]
        if not digits:
            return None
        cells = [i for i, _ in digits]
        start = cells[0] // SIDE * SIDE
        return "".join(d for _, d in digits) if cells == list(range(start, start + len(cells))) else None

    def replace_cell(self, cell: int, thing: Thing | None) -> Scene:
        """The same scene with another thing (or nothing) in one cell."""
        return replace(self, cells=(*self.cells[:cell], thing, *self.cells[cell + 1 :]))

    def with_background(self, color: str) -> Scene:
        """The same things on another background."""
        return replace(self, background=color)

    def to_json(self) -> dict:
        """A JSON-ready dict, read back by `from_json`."""
        return {"cells": [None if t is None else [t.concept, t.style] for t in self.cells], "background": self.background}

    @staticmethod
    def from_json(data: dict) -> Scene:
        """Inverse of `to_json`."""
        return Scene(tuple(None if c is None else Thing(*c) for c in data["cells"]), data["background"])


def placed(things: dict[int, Thing], background: str) -> Scene:
    """The scene with these things, by cell number, and nothing else."""
    return Scene(tuple(things.get(i) for i in CELLS), background)


def _draw(rng: random.Random, things: int | None, mixed_styles: float) -> Scene:
    count = things if things is not None else rng.choices(range(1, MOST_DIFFERENT + 1), _COUNT_WEIGHTS)[0]
    kind = rng.random()
    if count > 1 and (kind < 0.15 or count > MOST_DIFFERENT):  # several of one kind, for counting
        names = [rng.choice(THINGS)] * count
    else:
        names = rng.sample(THINGS, count)
        if count > 2 and kind < 0.4:
            names[1] = names[0]
    style, mixed = rng.choice(STYLES), rng.random() < mixed_styles
    places = rng.sample(CELLS, count)
    chosen = {p: Thing(n, rng.choice(STYLES) if mixed else style) for p, n in zip(places, names, strict=True)}
    return placed(chosen, rng.choice(_COLOR_NAMES))


def crowded_scene(rng: random.Random) -> Scene:
    """Anything anywhere, digits too, three cells in five: for learning what things look like. Of no split."""
    cells = [cell for cell in CELLS if rng.random() < _CROWD]
    names = tuple(CONCEPTS)
    return placed({cell: Thing(rng.choice(names), rng.choice(STYLES)) for cell in cells}, rng.choice(_COLOR_NAMES))


def number_scene(rng: random.Random, digits: str, row: int, others: int = 0, style: str | None = None) -> Scene:
    """A number in a row, from its left end on, and `others` things in the other rows."""
    style = style or rng.choice(STYLES)
    cells = {SIDE * row + column: Thing(digit, style) for column, digit in enumerate(digits)}
    free = [i for i in CELLS if i // SIDE != row]
    cells |= {i: Thing(n, style) for i, n in zip(rng.sample(free, others), rng.sample(THINGS, others), strict=True)}
    return placed(cells, rng.choice(_COLOR_NAMES))


def any_number(rng: random.Random) -> str:
    """One to three digits, without a zero in front (a lone zero may be)."""
    length = rng.choices((1, 2, 3), (0.2, 0.4, 0.4))[0]
    return str(rng.randrange(0 if length == 1 else 10 ** (length - 1), 10**length))


def sample_scene(
    rng: random.Random,
    split: str = "train",
    things: int | None = None,
    mixed_styles: float = 0.3,
    numbers: float = 0.0,
) -> Scene:
    """Draws a scene of 1 to 9 things.

    split: "train" or "seen" never holds a held-out combination (see split.py), "heldout" holds at least one,
    "any" is not filtered. mixed_styles, numbers: probabilities (of several styles; of a scene with a number).
    UserError for another split or count.
    """
    from llada_uni.world.split import in_split

    if things is not None and not 1 <= things <= len(CELLS):
        raise UserError(f"a scene holds 1 to {len(CELLS)} things, asked for {things}")
    while True:
        if rng.random() < numbers:
            scene = number_scene(rng, any_number(rng), rng.randrange(SIDE), rng.choice((0, 1, 2)))
        else:
            scene = _draw(rng, things, mixed_styles)
        if in_split(scene, split):
            return scene
