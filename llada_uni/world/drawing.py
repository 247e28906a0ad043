"""Text to image and refilling: prompts that fix some or all of a scene, and exactly what they fix.

Kinds of "t2i" (the six classes of GenEval, and full descriptions): single, two, counting, colors, position,
binding, full. Most prompts name one style for the picture; what a prompt leaves open may be anything.
"""

from __future__ import annotations

import random

from llada_uni.world.captions import caption, compact, quantity
from llada_uni.world.concepts import POSITIONS, STYLES
from llada_uni.world.samples import CELLS, NAMES, Sample, Turn, arrange, fits, pinned, until, wanted
from llada_uni.world.scene import Scene, Thing, sample_scene
from llada_uni.world.wordings import article, joined, pick

T2I_KINDS = {
    "single": 0.14,
    "two": 0.14,
    "counting": 0.18,
    "colors": 0.10,
    "position": 0.24,
    "binding": 0.10,
    "full": 0.10,
}
INPAINT_KINDS = {"refill": 1.0}
_MAX_WORDS = 18


def _scene(rng: random.Random, kind: str, split: str) -> Scene:
    if kind == "single":
        return arrange(rng, split, [1])
    if kind == "counting":
        count = rng.choice((2, 3, 4))
        other = count < 4 and rng.random() < 0.3
        return arrange(rng, split, [count, 1] if other else [count])
    if kind == "binding":
        return arrange(rng, split, [1, 1], mixed=True)
    if kind == "full":
        return sample_scene(rng, split, things=rng.choice((3, 4)))
    if kind == "colors":
        return arrange(rng, split, [1] * rng.choice((1, 1, 2)))
    if kind == "position":
        return arrange(rng, split, [1] * rng.choice((1, 2, 2, 3)), mixed=rng.random() < 0.2)
    return arrange(rng, split, [1, 1], mixed=rng.random() < 0.15)


def describe(
    rng: random.Random, scene: Scene, style: str, positions: bool, background: bool, wordings: str
) -> tuple[str, dict]:
    """Words for `scene` and what they fix.

    style: "none", "each" (before every name) or "once" ("... in flat style"; the scene must have one style).
    Returns (text, {"objects", "background"}).
    """
    things = scene.things()
    if rng.random() < 0.3:
        rng.shuffle(things)
    each = style == "each"
    if positions and (len(things) > 2 or (wordings == "train" and rng.random() < 0.2)):
        text = compact(things, styles=each)
    elif positions:
        at = pick(rng, "at", wordings)
        named = [(article(f"{t.style} {t.concept}" if each else t.concept), POSITIONS[i]) for i, t in things]
        text = " and ".join(at.format(a=a, p=p) for a, p in named)
    else:
        kinds = [(t.concept, t.style if each else None) for _, t in things]
        text = joined([quantity(name, kinds.count((name, s)), s) for name, s in dict.fromkeys(kinds)])
    if style == "once":
        text += f" in {things[0][1].style} style"
    if background:
        text += " " + pick(rng, "on", wordings).format(c=scene.background[0])
    styled = style != "none"
    objects = [wanted(t.concept, t.style if styled else None, i if positions else None) for i, t in things]
    return text, {"objects": objects, "background": scene.background[0] if background else None}


def sample_t2i(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A prompt and a scene that fulfils it."""

    def make() -> Sample | None:
        scene = _scene(rng, kind, split)
        one_style = len({t.style for _, t in scene.things()}) == 1
        if kind in ("binding", "full") or not one_style:
            style = "once" if one_style and rng.random() < 0.5 else "each"
        else:
            style = rng.choice(("each", "once")) if rng.random() < 0.8 else "none"
        positions = kind in ("position", "full") or (kind not in ("counting",) and rng.random() < 0.6)
        background = kind in ("colors", "full") or rng.random() < 0.5
        text, expect = describe(rng, scene, style, positions, background, wordings)
        if split == "heldout" and not pinned(expect["objects"]):
            return None  # the prompt itself must ask for the held-out combination
        prompt = pick(rng, "draw", wordings).format(d=text)
        if len(prompt.split()) > _MAX_WORDS:
            return None
        return Sample("t2i", kind, [Turn("user", [prompt])], [scene], expect)

    return until(make)


def sample_inpaint(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A picture, one or two cells to be refilled so that the whole becomes what the prompt says."""

    def make() -> Sample | None:
        scene = sample_scene(rng, split)
        full = [i for i, _ in scene.things()]
        holes = {rng.choice(full)} if rng.random() < 0.8 else {rng.choice(CELLS)}
        if rng.random() < 0.4:
            holes.add(rng.choice(CELLS))
        source = scene
        for cell in holes:  # what stood there before: another thing, or nothing
            other = Thing(rng.choice(NAMES), rng.choice(STYLES)) if rng.random() < 0.6 else None
            source = source.replace_cell(cell, other)
        if source == scene or (split != "heldout" and not fits(source, split)):
            return None
        style = "once" if len({t.style for _, t in scene.things()}) == 1 and rng.random() < 0.5 else "each"
        if rng.random() < 0.5 and wordings == "train":
            text, objects = caption(scene), [wanted(t.concept, t.style, i) for i, t in scene.things()]
            expect = {"objects": objects, "background": scene.background[0]}
        else:
            text, expect = describe(rng, scene, style, True, True, wordings)
        expect |= {"source": source, "cells": sorted(holes), "scene": scene}
        prompt = pick(rng, "draw", wordings).format(d=text)
        if len(prompt.split()) > _MAX_WORDS:
            return None
        return Sample("inpaint", kind, [Turn("user", [prompt])], [scene], expect)

    return until(make)
