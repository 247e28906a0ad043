"""Scenes in words: the one canonical caption, the list of things, and the pieces that prompts are made of."""

from __future__ import annotations

from llada_uni.world.concepts import CONCEPTS, DIGITS, POSITIONS, ROWS, SIDE
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.wordings import NUMBERS, article

CROWD = 4
"""From so many equal things on, a caption gives their number in place of their places."""


def caption(scene: Scene) -> str:
    """The canonical caption: things in the order of their cells, a number and a crowd of equal things as one.

    "cartoon cat top left, flat dog middle right on blue", "five 3d apples on pink",
    "flat number 42 in the top row, flat owl bottom left on white", "nothing on blue".
    """
    things, said, told = scene.things(), [], set()
    for cell, thing in things:
        if thing in told:
            continue
        alike = sum(other == thing for _, other in things)
        if thing.concept in DIGITS and scene.number() is not None:
            said.append(f"{thing.style} number {scene.number()} in the {ROWS[cell // SIDE]} row")
            told |= {t for _, t in things if t.concept in DIGITS}
        elif alike >= CROWD:
            said.append(quantity(thing.concept, alike, thing.style))
            told.add(thing)
        else:
            said.append(placed_name(cell, thing))
    return f"{', '.join(said) or 'nothing'} on {scene.background}"


def is_crowded(scene: Scene) -> bool:
    """Whether the caption leaves out the places of some things, because there are many equal ones."""
    things = [thing for _, thing in scene.things()]
    return any(things.count(thing) >= CROWD for thing in things)


def placed_name(cell: int, thing: Thing, style: bool = True) -> str:
    """A thing with its place in few words: "cartoon cat top left"."""
    return f"{thing.style + ' ' if style else ''}{thing.concept} {POSITIONS[cell]}"


def quantity(concept: str, count: int, style: str | None = None) -> str:
    """A number of one concept: "a cat", "three cartoon cats"."""
    prefix = f"{style} " if style else ""
    if count == 1:
        return article(prefix + concept)
    return f"{NUMBERS[count]} {prefix}{CONCEPTS[concept].plural}"
