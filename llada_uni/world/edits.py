"""Editing by instruction: what is not named stays. Kinds: add, remove, replace, move, background, style, number, extract, and
two references (something of one picture goes into another)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from llada_uni.world.concepts import CELLS, COLORS, DIGITS, POSITIONS, SIDE, STYLES
from llada_uni.world.questions import absent, unique
from llada_uni.world.samples import Sample, Turn, until
from llada_uni.world.sampling import any_number, number_scene, sample_scene
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.split import in_split
from llada_uni.world.wordings import Speaker, article

EDIT_KINDS = {
    "add": 0.15,
    "remove": 0.11,
    "replace": 0.17,
    "move": 0.13,
    "background": 0.08,
    "style": 0.11,
    "number": 0.08,
    "extract": 0.07,
    "two references": 0.10,
}
SINGLE = tuple(kind for kind in EDIT_KINDS if kind != "two references")
"""The kinds that change one picture."""
Edited = tuple[str, Scene]


def instruct(rng: random.Random, scene: Scene, kind: str, say: Speaker) -> Edited | None:
    """(instruction, wanted scene) of one of the kinds SINGLE; None where the scene does not allow the kind."""
    return _KINDS[kind](rng, scene, say)


def _new_thing(rng: random.Random, scene: Scene, style: str | None) -> tuple[str, Thing]:
    """Words for a thing that is not there yet, and the thing. Without a named style it takes `style`, where there is one."""
    tacit = style is not None and rng.random() < 0.5
    name = absent(rng, scene)
    thing = Thing(name, style if style is not None and tacit else rng.choice(STYLES))
    return article(thing.concept if tacit else f"{thing.style} {thing.concept}"), thing


def _add(rng: random.Random, scene: Scene, say: Speaker) -> Edited | None:
    styles, empty = {t.style for _, t in scene.things()}, scene.empty()
    if not empty:
        return None
    words, thing = _new_thing(rng, scene, min(styles) if len(styles) == 1 else None)
    cell = rng.choice(empty)
    return say.pick("add").format(a=words, p=POSITIONS[cell]), scene.replace_cell(cell, thing)


def _remove(rng: random.Random, scene: Scene, say: Speaker) -> Edited | None:
    single = unique(scene)
    if not single:
        return None
    cell, thing = rng.choice(single)
    return say.pick("remove").format(x=thing.concept), scene.replace_cell(cell, None)


def _replace(rng: random.Random, scene: Scene, say: Speaker) -> Edited | None:
    single = unique(scene)
    if not single:
        return None
    cell, old = rng.choice(single)
    words, new = _new_thing(rng, scene, old.style)
    return say.pick("replace").format(x=old.concept, a=words), scene.replace_cell(cell, new)


def _move(rng: random.Random, scene: Scene, say: Speaker) -> Edited | None:
    single, empty = unique(scene), scene.empty()
    if not single or not empty:
        return None
    (cell, thing), goal = rng.choice(single), rng.choice(empty)
    text = say.pick("move").format(x=thing.concept, p=POSITIONS[goal])
    return text, scene.replace_cell(cell, None).replace_cell(goal, thing)


def _background(rng: random.Random, scene: Scene, say: Speaker) -> Edited:
    color = rng.choice([c for c in COLORS if c != scene.background])
    return say.pick("background").format(c=color), scene.with_background(color)


def _style(rng: random.Random, scene: Scene, say: Speaker) -> Edited | None:
    single, styles = unique(scene), {t.style for _, t in scene.things()}
    if rng.random() < 0.5:
        style = rng.choice(STYLES)
        cells = tuple(t and Thing(t.concept, style) for t in scene.cells)
        return (say.pick("restyle all").format(s=style), replace(scene, cells=cells)) if styles != {style} else None
    if not single:
        return None
    cell, thing = rng.choice(single)
    style = rng.choice([s for s in STYLES if s != thing.style])
    return say.pick("restyle").format(x=thing.concept, s=style), scene.replace_cell(cell, Thing(thing.concept, style))


def _number(rng: random.Random, scene: Scene, say: Speaker) -> Edited | None:
    if scene.number() is None:
        return None
    number = until(lambda: ((n := any_number(rng)) != scene.number() and n) or None)
    start = min(i for i, t in scene.things() if t.concept in DIGITS)
    style, target = scene.at(start).style, scene
    for column in range(SIDE):
        digit = Thing(number[column], style) if column < len(number) else None
        target = target.replace_cell(start + column, digit)
    return say.pick("renumber").format(n=number), target


def _extract(rng: random.Random, scene: Scene, say: Speaker) -> Edited | None:
    """The named thing alone, where it is, on white."""
    single = unique(scene)
    if not single or len(scene.things()) < 2:
        return None
    cell, thing = rng.choice(single)
    return say.pick("extract").format(x=thing.concept), Scene((None,) * len(CELLS)).replace_cell(cell, thing)


_KINDS: dict[str, Callable[[random.Random, Scene, Speaker], Edited | None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "background": _background,
    "style": _style,
    "number": _number,
    "extract": _extract,
}


def combine(rng: random.Random, first: Scene, second: Scene, say: Speaker) -> tuple[str, Scene, Scene] | None:
    """(instruction, wanted scene, the picture that it changes) for two pictures."""
    if rng.random() < 0.3:
        if first.background == second.background:
            return None
        return say.pick("borrow ground"), first.with_background(second.background), first
    single, empty = unique(first), second.empty()
    if not single or not empty:
        return None
    thing, goal = rng.choice(single)[1], rng.choice(empty)
    if thing.concept in second.names():
        return None
    text = say.pick("bring over").format(x=thing.concept, p=POSITIONS[goal])
    return text, second.replace_cell(goal, thing), second


def changed_cells(before: Scene, after: Scene) -> list[int]:
    """The cells in which the things differ."""
    return [i for i in CELLS if before.cells[i] != after.cells[i]]


def expected(source: Scene, scene: Scene) -> dict:
    """What a checker judges of an edit."""
    return {"source": source, "scene": scene, "cells": changed_cells(source, scene)}


def source_scene(rng: random.Random, kind: str, split: str) -> Scene:
    """A picture to be edited."""
    if kind == "number":
        return until(lambda: _in(number_scene(rng, any_number(rng), rng.randrange(SIDE), rng.choice((0, 1, 2))), split))
    return sample_scene(rng, split, things=rng.choice((1, 2, 2, 3, 3, 4, 5, 6) if kind != "extract" else (2, 3, 4, 5)))


def _in(scene: Scene, split: str) -> Scene | None:
    return scene if in_split(scene, split) else None


def sample_edit(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A picture or two, an instruction of the kind, and the whole wanted picture, which belongs to the split."""
    source_split, say = "any" if split == "heldout" else split, Speaker(rng, wordings)

    def make() -> Sample | None:
        first = source_scene(rng, kind, source_split)
        if kind == "two references":
            second = source_scene(rng, kind, source_split)
            made, shown = combine(rng, first, second, say), [first, second]
        else:
            edited, shown = instruct(rng, first, kind, say), [first]
            made = edited and (*edited, first)
        if made is None or not in_split(made[1], split):
            return None
        text, scene, source = made
        return Sample("edit", kind, [Turn("user", [*shown, text])], [scene], expected(source, scene))

    return until(make)
