"""What one training or test sample is: the turns, the wanted answer, and what a checker may ask of it.

Texts are plain lower-case strings and pictures are Scenes; turning them into tokens is the caller's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from llada_uni.world.concepts import COLORS, STYLES
from llada_uni.world.scene import Scene
from llada_uni.world.split import held_out_numbers, held_out_pairs, held_out_positions, held_out_styles

Part = str | Scene
Made = TypeVar("Made")
COLOR_NAMES = tuple(COLORS)
DEFAULT_STYLE, DEFAULT_COLOR = "cartoon", "white"
_DEFAULT_SHARE = 0.5  # of what a prompt leaves open is the default; the rest is anything


@dataclass(frozen=True)
class Turn:
    """One turn: role "user" or "assistant"; parts: texts and scenes, a user's pictures before text."""

    role: str
    parts: list[Part]

    @property
    def text(self) -> str:
        """The text that ends a turn of the user."""
        text = self.parts[-1]
        assert isinstance(text, str)  # see above: a user's pictures stand before it
        return text


@dataclass(frozen=True)
class Sample:
    """One sample.

    task: one of tasks.TASKS; kind: the sort within the task; turns: all turns up to and including the last
    one of the user; answer: the wanted parts of the next turn; expect: what a checker judges. By task:
      t2i, think   "objects": list of {concept, style or None, position (cell) or None}, "background": name or
                   None, "relations": list of (object, relation, object), "number": digits or None, "row": row
                   of the number or None. Only what the prompt fixes stands there; any other object in the
                   picture is wrong. think: also "thought".
      understand   "answer": the canonical answer; "key": the part of it that decides (its last words), or None
                   where all of it does.
      edit         "source": Scene, "scene": the whole wanted Scene, "cells": the cells that change.
      inpaint      the same; the cells are those to refill.
      story        "characters": list of concepts, "style": name or None, "background": name or None (the place
                   asked for), "frames": how many.
      reasoning    "scenes": the Scenes of the steps, "final": the last words.
      dialogue     "turns": for every answer, what its own task would expect (of t2i, understand or edit).
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


def pinned(objects: list[dict], number: str | None = None) -> bool:
    """True when what is asked (not only what happened to be drawn) holds a held-out combination."""
    styles, positions, pairs = held_out_styles(), held_out_positions(), held_out_pairs()
    for o in objects:
        if (o["concept"], o["style"]) in styles or (o["concept"], o["position"]) in positions:
            return True
    names = sorted({o["concept"] for o in objects})
    return number in held_out_numbers() or any(frozenset((a, b)) in pairs for i, a in enumerate(names) for b in names[i + 1 :])


def until(make: Callable[[], Made | None]) -> Made:
    """Calls `make` until it gives something else than None: rejection sampling in one line."""
    while True:
        made = make()
        if made is not None:
            return made


def open_style(rng: random.Random, said: bool) -> str:
    """A style: any where the prompt says it, mostly the default where it does not."""
    return DEFAULT_STYLE if not said and rng.random() < _DEFAULT_SHARE else rng.choice(STYLES)


def open_color(rng: random.Random, said: bool) -> str:
    """A background color, likewise."""
    return DEFAULT_COLOR if not said and rng.random() < _DEFAULT_SHARE else rng.choice(COLOR_NAMES)
