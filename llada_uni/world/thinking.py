"""Prompts whose picture must be reasoned out first: the answer is a short thought in words, then the scene.

Kinds: sum, minus, riddle, more (counts relative to another), opposite (the diagonal place).
"""

from __future__ import annotations

import random

from llada_uni.world.captions import quantity
from llada_uni.world.concepts import CONCEPTS, POSITIONS, STYLES
from llada_uni.world.samples import CELLS, COLOR_NAMES, NAMES, Sample, Turn, fits, pinned, until, wanted
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.wordings import NUMBERS, article, pick

THINK_KINDS = {"sum": 0.22, "minus": 0.18, "riddle": 0.26, "more": 0.16, "opposite": 0.18}
RIDDLES = {
    "cat": "the animal that says meow",
    "dog": "the animal that says woof",
    "cow": "the animal that says moo",
    "pig": "the animal that says oink",
    "duck": "the animal that says quack",
    "frog": "the animal that says ribbit",
    "owl": "the animal that says hoot",
    "lion": "the animal that says roar",
    "bee": "the animal that says buzz",
    "monkey": "the animal that loves bananas",
    "rocket": "the thing that flies to the stars",
    "boat": "the thing that sails on the sea",
    "key": "the thing that opens a door",
    "cactus": "the plant of the desert",
}
_ASKED = {"sum": ("plus", lambda a, b: a + b), "minus": ("minus", lambda a, b: a - b)}


def _problem(rng: random.Random, kind: str) -> tuple[str, str, list[tuple[str, int]], int | None]:
    """(words, thought, [(concept, count)], cell or None); "{s}" in the words: a style may stand there."""
    name, other = rng.sample(NAMES, 2)
    if kind in _ASKED:
        sign, result = _ASKED[kind]
        pairs = [(a, b) for a in (1, 2, 3, 4) for b in (1, 2, 3) if 1 <= result(a, b) <= 4]
        a, b = rng.choice(pairs)
        count = result(a, b)
        noun = CONCEPTS[name].plural if count > 1 else name
        text = f"{NUMBERS[a]} {sign} {NUMBERS[b]} {{s}}{noun}"
        return text, f"{NUMBERS[a]} {sign} {NUMBERS[b]} is {NUMBERS[count]}", [(name, count)], None
    if kind == "riddle":
        name = rng.choice(tuple(RIDDLES))
        return RIDDLES[name], f"this is {article(name)}", [(name, 1)], None
    if kind == "opposite":
        cell = rng.choice(CELLS)
        text = f"{article(name)} at the opposite of the {POSITIONS[3 - cell]}"
        return text, f"the opposite of {POSITIONS[3 - cell]} is {POSITIONS[cell]}", [(name, 1)], cell
    base = rng.choice((1, 2))
    step = rng.choice((0, 1)) if base == 1 else rng.choice((0, -1))
    count = base + step
    first, plural = quantity(name, base), CONCEPTS[other].plural
    if step == 0:
        text, thought = f"{first} and as many {plural}", f"as many is {NUMBERS[count]}"
    else:
        word, sign = ("more", "plus") if step > 0 else ("less", "minus")
        text = f"{first} and one {word} {other} than {CONCEPTS[name].plural}"
        thought = f"{NUMBERS[base]} {sign} one is {NUMBERS[count]}"
    return text, thought, [(name, base), (other, count)], None


def sample_think(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A prompt to reason about, the thought and the scene."""

    def make() -> Sample | None:
        text, thought, counts, cell = _problem(rng, kind)
        style = rng.choice(STYLES)
        names = [name for name, count in counts for _ in range(count)]
        places = rng.sample(CELLS, len(names)) if cell is None else [cell]
        cells: list[Thing | None] = [None] * len(CELLS)
        for place, name in zip(places, names, strict=True):
            cells[place] = Thing(name, style)
        scene = Scene(tuple(cells), (rng.choice(COLOR_NAMES),))
        if not fits(scene, split):
            return None
        said = rng.random() < 0.7
        if "{s}" in text:
            inside = said and rng.random() < 0.5
            text = text.format(s=f"{style} " if inside else "")
        else:
            inside = False
        if said and not inside:
            text += f" in {style} style"
        background = rng.random() < 0.4
        if background:
            text += " " + pick(rng, "on", wordings).format(c=scene.background[0])
        objects = [wanted(name, style if said else None, cell) for name in names]
        if split == "heldout" and not pinned(objects):
            return None
        ground = scene.background[0] if background else None
        expect = {"objects": objects, "background": ground, "thought": thought}
        prompt = pick(rng, "draw", wordings).format(d=text)
        return Sample("think", kind, [Turn("user", [prompt])], [thought, scene], expect)

    return until(make)
