from __future__ import annotations

import random

import pytest

from llada_uni.world.checker import Reading
from llada_uni.world.concepts import CONCEPTS, POSITIONS
from llada_uni.world.edits import EDIT_KINDS, changed_cells
from llada_uni.world.evaluation.scoring import score_edit
from llada_uni.world.tasks import Sample, sample_task


def edits(kind: str) -> list[Sample]:
    rng = random.Random(11)
    return [sample_task(rng, "edit", kind=kind) for _ in range(150)]


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_an_edit_changes_what_it_names_and_nothing_else(kind: str) -> None:
    for sample in edits(kind):
        *shown, text = sample.turns[0].parts
        before, after, cells = sample.expect["source"], sample.expect["scene"], sample.expect["cells"]
        assert len(shown) == (2 if kind == "two references" else 1) and before in shown
        assert cells == changed_cells(before, after)
        named = {w for w in text.split() if w in CONCEPTS}
        if kind in ("add", "move", "replace") or ("second" in text and named):
            position = next((p for p in POSITIONS if p in text), None)
            new = [after.cells[i] for i in cells if after.cells[i]]
            assert len(new) == 1 and new[0].concept in named
            assert position is None or after.cells[POSITIONS.index(position)] == new[0]
            assert len(cells) == (2 if kind == "move" else 1)
        elif kind == "remove":
            assert [before.cells[i].concept for i in cells] == list(named) and after.cells[cells[0]] is None
        elif kind == "style":
            assert all(after.cells[i].style in text.split() for i in cells)
            assert [t.concept for _, t in before.things()] == [t.concept for _, t in after.things()]
        elif kind == "number":
            assert after.number() == next(w for w in text.split() if w.isdecimal()) != before.number()
        elif kind == "extract":
            assert after.background == "white" and after.names() == list(named)
            assert after.things()[0] in before.things()
        else:
            assert not cells and before.background != after.background
        assert (before.background == after.background) or kind in ("background", "extract", "two references")


def test_a_thing_brought_over_keeps_its_style() -> None:
    for sample in edits("two references"):
        first, second, text = sample.turns[0].parts
        if "background" in text:
            assert sample.expect["scene"] == first.with_background(second.background)
        else:
            new = sample.expect["scene"].cells[sample.expect["cells"][0]]
            assert new in [t for _, t in first.things()] and sample.expect["source"] == second


def test_the_oracle_picture_is_right_and_the_source_is_not() -> None:
    rng = random.Random(0)
    for _ in range(300):
        sample = sample_task(rng, "edit", "heldout", "heldout")
        assert score_edit(sample.expect, Reading.of(sample.answer[0]))["right"] == 1.0
        assert score_edit(sample.expect, Reading.of(sample.expect["source"]))["right"] == 0.0
