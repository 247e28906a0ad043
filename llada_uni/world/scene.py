"""A scene of the small world: what stands in each of the nine cells, on which background.

Scenes are plain values (frozen dataclasses), so that they can be compared, hashed and written as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llada_uni.errors import UserError
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, DIGITS, SIDE, STYLES

MOST_DIFFERENT = 6
"""Things of different kinds that a scene holds at most; of one kind there may be nine."""


@dataclass(frozen=True)
class Thing:
    """One drawn object: a concept of CONCEPTS in a style of STYLES."""

    concept: str
    style: str


@dataclass(frozen=True)
class Scene:
    """cells: one Thing or None for each of POSITIONS; background: name of a color.

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

    def at(self, cell: int) -> Thing:
        """The thing in a cell; UserError where nothing stands."""
        thing = self.cells[cell]
        if thing is None:
            raise UserError(f"nothing stands in cell {cell}")
        return thing

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
