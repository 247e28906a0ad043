"""What one training or test sample is: the turns, the wanted answer, and what a checker may ask of it.

Texts are plain lower-case strings and pictures are Scenes; turning them into tokens is the caller's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from llada_uni.errors import UserError
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, STYLES
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.split import held_out_pairs, held_out_positions, held_out_styles, is_held_out

Part = str | Scene
NAMES = tuple(CONCEPTS)
COLOR_NAMES = tuple(COLORS)
CELLS = tuple(range(len(POSITIONS)))


@dataclass(frozen=True)
class Turn:
    """One turn: role "user" or "assistant"; parts: texts and scenes, a user's pictures before text."""

    role: str
    parts: list[Part]


@dataclass(frozen=True)
class Sample:
    """One sample.

    task: t2i | think | understand | edit | inpaint | story | dialogue; kind: the sort within the task;
    turns: all turns up to and including the last one of the user; answer: the wanted parts of the next turn;
    expect: what a checker judges. By task:
      t2i, think   "objects": list of {concept, style or None, position (cell 0..3) or None}, "background":
                   name or None. Only what the prompt fixes stands there; any other object in the picture is
                   wrong.
      inpaint      the same, and "source": Scene, "cells": the cells to refill, "scene": the wanted Scene.
      understand   "answer": str.
      edit         "source": Scene, "scene": the whole wanted Scene, "cells": the cells that change.
      story        "characters": list of {concept, style or None}, "background": name or None (the place asked
                   for), "scenes": the Scenes of the sample's own frames.
      dialogue     as understand (kind "questions") or as edit (kind "edit").
    """

    task: str
    kind: str
    turns: list[Turn]
    answer: list[Part]
    expect: dict = field(default_factory=dict)

    def scenes(self) -> list[Scene]:
        """Every scene of the sample: in turns, in the answer, and the source of a refilled picture."""
        parts = [p for turn in self.turns for p in turn.parts] + list(self.answer)
        found = [p for p in parts if isinstance(p, Scene)]
        return found + ([self.expect["source"]] if self.task == "inpaint" else [])


def wanted(concept: str, style: str | None = None, position: int | None = None) -> dict:
    """One entry of expect["objects"]."""
    return {"concept": concept, "style": style, "position": position}


def pinned(objects: list[dict]) -> bool:
    """True when what is asked (not only what happened to be drawn) holds a held-out combination."""
    styles, positions, pairs = held_out_styles(), held_out_positions(), held_out_pairs()
    for o in objects:
        if (o["concept"], o["style"]) in styles or (o["concept"], o["position"]) in positions:
            return True
    names = sorted({o["concept"] for o in objects})
    return any(frozenset((a, b)) in pairs for i, a in enumerate(names) for b in names[i + 1 :])


def fits(scene: Scene, split: str) -> bool:
    """Whether `scene` belongs to the split: "heldout" has a held-out combination, others none."""
    return split == "any" or is_held_out(scene) == (split == "heldout")


def until(make: Callable[[], object | None]) -> object:
    """Calls `make` until it gives something else than None: rejection sampling in one line."""
    while True:
        made = make()
        if made is not None:
            return made


def arrange(rng: random.Random, split: str, counts: list[int], mixed: bool = False) -> Scene:
    """A scene with len(counts) different concepts, counts[i] things of the i-th, in random cells.

    mixed: a style for each concept, not all the same; otherwise one style for the whole picture.
    """
    if sum(counts) > len(CELLS):
        raise UserError(f"a scene holds at most {len(CELLS)} things, asked for {sum(counts)}")
    while True:
        names = rng.sample(NAMES, len(counts))
        styles = [rng.choice(STYLES) for _ in names] if mixed else [rng.choice(STYLES)] * len(names)
        if mixed and len(set(styles)) == 1 and len(styles) > 1:
            continue
        things = [Thing(n, s) for n, s, c in zip(names, styles, counts, strict=True) for _ in range(c)]
        cells: list[Thing | None] = [None] * len(CELLS)
        for place, thing in zip(rng.sample(CELLS, len(things)), things, strict=True):
            cells[place] = thing
        scene = Scene(tuple(cells), (rng.choice(COLOR_NAMES),))
        if fits(scene, split):
            return scene
