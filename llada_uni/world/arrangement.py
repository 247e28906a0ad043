"""Where things stand when a prompt leaves it open: always the same places, so that a picture follows from its words.

A model that fills all cells at once cannot agree with itself on one of many equally good layouts (two cells would each take
the cat, or neither); with a rule there is nothing to agree on. One kind of thing stands like the pips of a die; two or three
kinds get a row each.
"""

from __future__ import annotations

from llada_uni.world.concepts import CELLS, SIDE

PIPS: dict[int, tuple[int, ...]] = {
    1: (4,),
    2: (3, 5),
    3: (3, 4, 5),
    4: (0, 2, 6, 8),
    5: (0, 2, 4, 6, 8),
    6: (0, 2, 3, 5, 6, 8),
    7: (0, 2, 3, 4, 5, 6, 8),
    8: (0, 1, 2, 3, 5, 6, 7, 8),
    9: CELLS,
}
"""Cells of so many equal things."""
_IN_ROW = {1: (1,), 2: (0, 2), 3: (0, 1, 2)}
_ROWS = {2: (0, 2), 3: (0, 1, 2)}

RELATIONS = {
    "left of": lambda i, j: i % SIDE < j % SIDE,
    "right of": lambda i, j: i % SIDE > j % SIDE,
    "above": lambda i, j: i // SIDE < j // SIDE,
    "below": lambda i, j: i // SIDE > j // SIDE,
}
"""Whether the thing in cell i stands so to the thing in cell j."""
RELATED: dict[str, tuple[int, int]] = {"left of": (3, 5), "right of": (5, 3), "above": (1, 7), "below": (7, 1)}
"""Cells of "x RELATION y"."""


def in_row(row: int, count: int) -> tuple[int, ...]:
    """Cells of one to three things in a row."""
    return tuple(SIDE * row + column for column in _IN_ROW[count])


def cells_of(counts: list[int]) -> list[tuple[int, ...]]:
    """Cells of every kind, given how many there are of each; with several kinds three of each at most."""
    if len(counts) == 1:
        return [PIPS[counts[0]]]
    return [in_row(row, count) for row, count in zip(_ROWS[len(counts)], counts, strict=True)]
