"""Dialogues of two or three turns about one picture; some end with an edit that a picture answers."""

from __future__ import annotations

import random
from itertools import pairwise

from llada_uni.world.edits import EDIT_KINDS, changed_cells, instruct
from llada_uni.world.questions import UNDERSTAND_KINDS, ask, unique
from llada_uni.world.samples import Sample, Turn, fits, until
from llada_uni.world.scene import Scene, sample_scene
from llada_uni.world.wordings import pick

DIALOGUE_KINDS = {"questions": 0.7, "edit": 0.3}
_ASKED = {k: w for k, w in UNDERSTAND_KINDS.items() if k not in ("caption",)}


def _questions(rng: random.Random, scene: Scene, count: int, wordings: str) -> list[tuple[str, str]] | None:
    """`count` different questions with answers; after naming a thing the next may ask about "it"."""
    pairs: list[tuple[str, str]] = []
    seen: set[str] = set()
    by_name = {t.concept: t for _, t in unique(scene)}
    while len(pairs) < count:
        last = pairs[-1][1] if pairs else None
        if last in by_name and "it" not in seen and rng.random() < 0.4:
            pairs.append((pick(rng, "style of it", wordings), by_name[last].style))
            seen.add("it")
            continue
        kind = rng.choices(tuple(_ASKED), tuple(_ASKED.values()))[0]
        asked = ask(rng, scene, kind, wordings)
        if asked is not None and asked[0] not in seen:
            seen.add(asked[0])
            pairs.append(asked)
    return pairs


def sample_dialogue(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """Questions and answers about one picture; kind "edit" ends with an instruction, answered by a scene."""
    source_split = "any" if split == "heldout" and kind == "edit" else split

    def make() -> Sample | None:
        scene = sample_scene(rng, source_split, things=rng.choice((1, 2, 2, 3, 3, 4)))
        instruction = None
        if kind == "edit":
            how = rng.choices(tuple(EDIT_KINDS), tuple(EDIT_KINDS.values()))[0]
            instruction = instruct(rng, scene, how, wordings)
            if instruction is None or not fits(instruction[1], split):
                return None
        pairs = _questions(rng, scene, rng.choice((1, 2) if instruction else (2, 2, 3)), wordings)
        turns = [Turn("user", [scene, pairs[0][0]])]
        for (_, answer), (question, _) in pairwise(pairs):
            turns += [Turn("assistant", [answer]), Turn("user", [question])]
        if instruction is None:
            return Sample("dialogue", kind, turns, [pairs[-1][1]], {"answer": pairs[-1][1]})
        text, target = instruction
        turns += [Turn("assistant", [pairs[-1][1]]), Turn("user", [text])]
        expect = {"source": scene, "scene": target, "cells": changed_cells(scene, target)}
        return Sample("dialogue", kind, turns, [target], expect)

    return until(make)
