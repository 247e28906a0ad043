"""Draws scenes of the small world at random: ordinary ones, crowded ones, and ones with a number, by seed and split."""

from __future__ import annotations

import random

from llada_uni.errors import UserError
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, SIDE, STYLES, THINGS
from llada_uni.world.scene import MOST_DIFFERENT, Scene, Thing, placed
from llada_uni.world.split import in_split

_COLOR_NAMES = tuple(COLORS)
_COUNT_WEIGHTS = (0.18, 0.26, 0.22, 0.16, 0.10, 0.08)
_CROWD = 0.6


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
    if things is not None and not 1 <= things <= len(CELLS):
        raise UserError(f"a scene holds 1 to {len(CELLS)} things, asked for {things}")
    while True:
        if rng.random() < numbers:
            scene = number_scene(rng, any_number(rng), rng.randrange(SIDE), rng.choice((0, 1, 2)))
        else:
            scene = _draw(rng, things, mixed_styles)
        if in_split(scene, split):
            return scene
