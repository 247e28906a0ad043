from __future__ import annotations

import random
from collections import Counter

import pytest

from llada_uni.world.concepts import CONCEPTS, POSITIONS
from llada_uni.world.tasks import sample_task
from llada_uni.world.thinking import RIDDLES, THINK_KINDS
from llada_uni.world.wordings import NUMBERS

NAMES = {form: c.name for c in CONCEPTS.values() for form in (c.name, c.plural)}


@pytest.mark.parametrize("kind", THINK_KINDS)
def test_the_picture_follows_from_the_prompt(kind: str) -> None:
    rng = random.Random(3)
    for _ in range(300):
        sample = sample_task(rng, "think", kind=kind)
        prompt, (thought, scene) = sample.turns[0].parts[0], sample.answer
        words = prompt.split()
        counts = Counter(t.concept for _, t in scene.things())
        numbers = [NUMBERS.index(w) for w in words if w in NUMBERS]
        named = [NAMES[w] for w in words if w in NAMES]
        if kind == "sum":
            assert counts == {named[0]: sum(numbers)}
        elif kind == "minus":
            assert counts == {named[0]: numbers[0] - numbers[1]}
        elif kind == "riddle":
            assert RIDDLES[scene.things()[0][1].concept] in prompt
            assert thought.split()[-1] == scene.things()[0][1].concept
        elif kind == "opposite":
            said = next(i for i, p in enumerate(POSITIONS) if p in prompt)
            assert [i for i, _ in scene.things()] == [3 - said]
            assert thought.endswith(POSITIONS[3 - said])
        else:
            base = counts[named[0]]
            step = 1 if "more" in words else -1 if "less" in words else 0
            assert counts[named[1]] == base + step
            assert base == (1 if words[words.index("and") - 1] == named[0] else numbers[0])
        if kind in ("sum", "minus", "more"):
            assert thought.split()[-1] == NUMBERS[counts[named[1] if kind == "more" else named[0]]]
        assert sample.expect["thought"] == thought


def test_riddles_are_about_different_known_things() -> None:
    assert len(RIDDLES) >= 12
    assert set(RIDDLES) <= set(CONCEPTS)
    assert len(set(RIDDLES.values())) == len(RIDDLES)
