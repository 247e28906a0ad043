from __future__ import annotations

import random
from collections import Counter

import pytest

from llada_uni.world.checker import Reading
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, THINGS
from llada_uni.world.evaluation.scoring import score_drawing
from llada_uni.world.tasks import sample_task
from llada_uni.world.thinking import FACTS, RIDDLES, THINK_KINDS
from llada_uni.world.wordings import NUMBERS

NAMES = {form: c.name for c in CONCEPTS.values() for form in (c.name, c.plural)}


@pytest.mark.parametrize("kind", THINK_KINDS)
def test_the_picture_follows_from_the_prompt(kind: str) -> None:
    rng = random.Random(3)
    for _ in range(300):
        sample = sample_task(rng, "think", kind=kind)
        prompt, (thought, scene) = sample.turns[0].parts[0], sample.answer
        words = prompt.replace(",", "").split()
        counts = Counter(scene.names())
        numbers = [NUMBERS.index(w) for w in words if w in NUMBERS]
        named = [NAMES[w] for w in words if w in NAMES]
        if kind == "sum":
            assert counts == {named[0]: sum(numbers)}
        elif kind == "minus":
            assert counts == {named[0]: numbers[0] - numbers[1]}
        elif kind == "double":
            assert counts == {named[0]: 2 * (numbers[0] if numbers else 1)}
        elif kind == "riddle":
            assert RIDDLES[scene.names()[0]] in prompt
        elif kind == "opposite":
            said = next(i for i, p in enumerate(POSITIONS) if p in prompt)
            assert [i for i, _ in scene.things()] == [8 - said]
            assert f"is {POSITIONS[8 - said]}:" in thought
        elif kind == "sequence":
            a, b, c = (int(w) for w in words if w.isdecimal())
            assert b - a == c - b and scene.number() == str(2 * c - b)
        elif kind == "fact":
            assert any(what in prompt for what in FACTS[scene.background])
        else:
            step = 1 if "more" in words else -1 if "less" in words else 0
            assert counts[named[1]] == counts[named[0]] + step
        assert sample.expect["thought"] == thought


def test_a_thought_ends_in_plain_words_for_the_picture() -> None:
    rng = random.Random(4)
    for _ in range(500):
        sample = sample_task(rng, "think")
        plain = sample.answer[0].split(": ")[1]
        for name, count in Counter(n for n in sample.answer[1].names() if n in THINGS).items():
            assert (name if count == 1 else f"{NUMBERS[count]} ") in plain
        color = sample.expect["background"]
        assert plain.endswith(f"on {color}") if color else not any(c in plain.split() for c in COLORS)
        assert score_drawing(sample.expect, Reading.of(sample.answer[1]))["right"] == 1.0


def test_riddles_are_about_different_known_things() -> None:
    assert len(RIDDLES) >= 25
    assert set(RIDDLES) <= set(THINGS)
    assert len(set(RIDDLES.values())) == len(RIDDLES)
    assert set(FACTS) == set(COLORS)
