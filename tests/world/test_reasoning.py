"""Reasoning with pictures: every step is legal and leads to the result."""

from __future__ import annotations

import itertools
import random

import pytest

from llada_uni.world.checker import Reading
from llada_uni.world.evaluation.scoring import score_reasoning
from llada_uni.world.reasoning import REASONING_KINDS, way
from llada_uni.world.tasks import Sample, sample_task


def problems(kind: str, split: str = "train") -> list[Sample]:
    rng = random.Random(8)
    return [sample_task(rng, "reasoning", split, kind=kind) for _ in range(120)]


def frames(sample: Sample) -> list[tuple[str, Reading | None]]:
    *steps, final = sample.answer
    return [*((t, Reading.of(s)) for t, s in zip(steps[::2], steps[1::2], strict=True)), (final, None)]


@pytest.mark.parametrize("kind", REASONING_KINDS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_sample_solves_its_own_problem(kind: str, split: str) -> None:
    for sample in problems(kind, split):
        assert score_reasoning(sample.expect, frames(sample)) == {"right": 1.0, "steps": 1.0, "words": 1.0}
        assert 1 <= len(sample.expect["scenes"]) <= 4
        start, last = sample.turns[0].parts[0], sample.expect["scenes"][-1]
        assert start != last


def test_sorting_ends_sorted_and_keeps_the_digits() -> None:
    for sample in problems("sort"):
        start, last = sample.turns[0].parts[0], sample.expect["scenes"][-1]
        assert last.number() == "".join(sorted(start.number())) and sample.answer[-1] == f"sorted: {last.number()}"


def test_patterns_repeat() -> None:
    for sample in problems("pattern"):
        names = sample.expect["scenes"][-1].names()
        assert len(names) == 9
        assert any(all(names[i] == names[i % period] for i in range(9)) for period in (2, 3))


def test_walks_go_one_cell_a_step_and_around_things() -> None:
    for sample in problems("walk"):
        boards = [sample.turns[0].parts[0], *sample.expect["scenes"]]
        for before, after in itertools.pairwise(boards):
            changed = [i for i in range(9) if before.cells[i] != after.cells[i]]
            assert len(changed) == 2 and abs(changed[0] - changed[1]) in (1, 3)
        walls = [t for t in boards[0].names() if boards[0].names().count(t) == boards[-1].names().count(t)]
        assert len(walls) >= len(boards[-1].names()) - 1


def test_the_shortest_way_in_a_fixed_order() -> None:
    assert way(0, 8, set()) == ["right", "right", "down", "down"]
    assert way(0, 2, {1}) == ["down", "right", "right", "up"]
    assert way(2, 3, set()) == ["down", "left", "left"]  # cells 2 and 3 are no neighbors
    assert way(0, 8, {1, 3}) is None


def test_what_is_wrong_is_scored_so() -> None:
    sample = next(p for p in problems("walk") if len(p.expect["scenes"]) >= 2)
    told = frames(sample)
    assert score_reasoning(sample.expect, told[:-1])["words"] == 0.0
    assert score_reasoning(sample.expect, [])["right"] == 0.0
    skipped = score_reasoning(sample.expect, told[1:])
    assert skipped["right"] == 1.0 and skipped["steps"] == 0.0
    stopped = score_reasoning(sample.expect, [*told[:-2], told[-1]])
    assert stopped["right"] == 0.0 and 0.0 < stopped["steps"] < 1.0
