"""Scenes in words: the one canonical caption, the list of things, and the pieces that prompts are made of."""

from __future__ import annotations

from llada_uni.world.concepts import CONCEPTS, POSITIONS
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.wordings import NUMBERS, article, joined


def caption(scene: Scene) -> str:
    """The canonical caption. Long for up to two things, compact for more, so that it never passes 18 words.

    "a cartoon cat at the top left and a flat dog at the bottom right on blue",
    "cartoon cat top left, flat dog top right, 3d fox bottom right on blue", "nothing on blue".
    """
    things = scene.things()
    ground = "on " + " and ".join(scene.background)
    if not things:
        return f"nothing {ground}"
    if len(things) <= 2:
        said = " and ".join(f"{article(f'{t.style} {t.concept}')} at the {POSITIONS[i]}" for i, t in things)
    else:
        said = compact(things, styles=True)
    return f"{said} {ground}"


def compact(things: list[tuple[int, Thing]], styles: bool) -> str:
    """Things with their places in few words: "cartoon cat top left, flat dog top right"."""
    return ", ".join(f"{t.style + ' ' if styles else ''}{t.concept} {POSITIONS[i]}" for i, t in things)


def quantity(concept: str, count: int, style: str | None = None) -> str:
    """A number of one concept: "a cat", "three cartoon cats"."""
    prefix = f"{style} " if style else ""
    if count == 1:
        return article(prefix + concept)
    return f"{NUMBERS[count]} {prefix}{CONCEPTS[concept].plural}"


def listing(scene: Scene) -> str:
    """The things by name and number, first seen first: "two cats and a dog"; "nothing" for none."""
    names = [t.concept for _, t in scene.things()]
    counts = {name: names.count(name) for name in names}
    return joined([quantity(name, n) for name, n in counts.items()]) or "nothing"
