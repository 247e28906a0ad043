"""Editing by instruction: add, remove, replace, move, background, style. What is not named stays."""

from __future__ import annotations

import random
from dataclasses import replace

from llada_uni.world.concepts import POSITIONS, STYLES
from llada_uni.world.questions import absent, unique
from llada_uni.world.samples import CELLS, COLOR_NAMES, Sample, Turn, fits, until
from llada_uni.world.scene import Scene, Thing, sample_scene
from llada_uni.world.wordings import article, pick

EDIT_KINDS = {"add": 0.20, "remove": 0.15, "replace": 0.25, "move": 0.15, "background": 0.12, "style": 0.13}


def instruct(rng: random.Random, scene: Scene, kind: str, wordings: str) -> tuple[str, Scene] | None:
    """(instruction, wanted scene); None where the scene does not allow the kind.

    A new thing without a named style takes the style of the thing it replaces, or of the whole picture.
    """
    things, single = scene.things(), unique(scene)
    empty = [i for i in CELLS if scene.cells[i] is None]
    styles = {t.style for _, t in things}
    if kind == "background":
        color = rng.choice([c for c in COLOR_NAMES if (c,) != scene.background])
        return pick(rng, "recolor", wordings).format(c=color), scene.with_background(color)
    if kind == "add":
        if not empty:
            return None
        name, cell = absent(rng, scene), rng.choice(empty)
        tacit = len(styles) == 1 and rng.random() < 0.5
        style = next(iter(styles)) if tacit else rng.choice(STYLES)
        said = article(name if tacit else f"{style} {name}")
        text = pick(rng, "add", wordings).format(a=said, p=POSITIONS[cell])
        return text, scene.replace_cell(cell, Thing(name, style))
    if kind == "style" and rng.random() < 0.4:
        style = rng.choice(STYLES)
        if styles == {style}:
            return None
        cells = tuple(t and Thing(t.concept, style) for t in scene.cells)
        return pick(rng, "restyle all", wordings).format(s=style), replace(scene, cells=cells)
    if not single:
        return None
    cell, thing = rng.choice(single)
    if kind == "remove":
        return pick(rng, "remove", wordings).format(x=thing.concept), scene.replace_cell(cell, None)
    if kind == "replace":
        name, tacit = absent(rng, scene), rng.random() < 0.6
        style = thing.style if tacit else rng.choice(STYLES)
        said = article(name if tacit else f"{style} {name}")
        text = pick(rng, "replace", wordings).format(x=thing.concept, a=said)
        return text, scene.replace_cell(cell, Thing(name, style))
    if kind == "move":
        if not empty:
            return None
        goal = rng.choice(empty)
        text = pick(rng, "move", wordings).format(x=thing.concept, p=POSITIONS[goal])
        return text, scene.replace_cell(cell, None).replace_cell(goal, thing)
    style = rng.choice([s for s in STYLES if s != thing.style])
    text = pick(rng, "restyle", wordings).format(x=thing.concept, s=style)
    return text, scene.replace_cell(cell, Thing(thing.concept, style))


def changed_cells(before: Scene, after: Scene) -> list[int]:
    """The cells in which the things differ."""
    return [i for i in CELLS if before.cells[i] != after.cells[i]]


def sample_edit(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A picture, an instruction of the kind, and the whole wanted picture."""
    source_split = "any" if split == "heldout" else split

    def make() -> Sample | None:
        low, high = (1, 3) if kind in ("add", "move") else (2, 4) if kind == "remove" else (1, 4)
        source = sample_scene(rng, source_split, things=rng.randint(low, high))
        made = instruct(rng, source, kind, wordings)
        if made is None or not fits(made[1], split):
            return None
        text, scene = made
        expect = {"source": source, "scene": scene, "cells": changed_cells(source, scene)}
        return Sample("edit", kind, [Turn("user", [source, text])], [scene], expect)

    return until(make)
