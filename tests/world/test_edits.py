from __future__ import annotations

import random
import re

import pytest

from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, STYLES
from llada_uni.world.edits import EDIT_KINDS
from llada_uni.world.samples import Sample
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.tasks import sample_task


def apply(sample: Sample) -> Scene:
    """The wanted scene worked out again from the words of the instruction."""
    source, text = sample.turns[0].parts
    words = text.split()
    names = [w for w in words if w in CONCEPTS]
    style = next((w for w in words if w in STYLES), None)
    cell = next((i for i, p in enumerate(POSITIONS) if p in text), None)
    where = {t.concept: i for i, t in source.things()}
    if sample.kind == "add":
        return source.replace_cell(cell, Thing(names[0], style or source.things()[0][1].style))
    if sample.kind == "remove":
        return source.replace_cell(where[names[0]], None)
    if sample.kind == "replace":
        i = where[names[0]]
        return source.replace_cell(i, Thing(names[1], style or source.cells[i].style))
    if sample.kind == "move":
        i = where[names[0]]
        return source.replace_cell(i, None).replace_cell(cell, source.cells[i])
    if sample.kind == "background":
        return source.with_background(next(w for w in words if w in COLORS))
    scene = source
    for i, thing in source.things():
        if "everything" in words or thing.concept == names[0]:
            scene = scene.replace_cell(i, Thing(thing.concept, style))
    return scene


@pytest.mark.parametrize("kind", EDIT_KINDS)
@pytest.mark.parametrize("wordings", ["train", "heldout"])
def test_the_wanted_scene_is_what_the_instruction_says(kind: str, wordings: str) -> None:
    rng = random.Random(11)
    for _ in range(400):
        sample = sample_task(rng, "edit", "train", wordings, kind)
        assert apply(sample) == sample.expect["scene"], sample
        changed = [i for i in range(4) if sample.expect["source"].cells[i] != sample.expect["scene"].cells[i]]
        assert sample.expect["cells"] == changed


def test_a_name_in_an_instruction_points_at_one_thing() -> None:
    rng = random.Random(12)
    for _ in range(1000):
        sample = sample_task(rng, "edit")
        source, text = sample.turns[0].parts
        concepts = [t.concept for _, t in source.things()]
        for name in re.findall(r"the (\w+)", text):
            assert name not in CONCEPTS or concepts.count(name) == 1
