"""Exact match and F1 of words, by hand-made examples and by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llada_uni.evaluation.metrics import METRICS, exact, f1, normal


@pytest.mark.parametrize(
    ("answer", "right", "exactly", "words"),
    [
        ("Two cats.", ["two cats"], 1.0, 1.0),
        ("two  cats", ["a dog", "two cats"], 1.0, 1.0),
        ("two cats", ["two dogs"], 0.0, 0.5),
        ("a cat a cat", ["a cat"], 0.0, 2 / 3),  # words count as often as they stand there
        ("", ["two"], 0.0, 0.0),
        ("", [""], 1.0, 1.0),
        ("Älteres Haus!", ["älteres haus"], 1.0, 1.0),
        ("红色", ["红色。"], 1.0, 1.0),
    ],
)
def test_examples(answer, right, exactly, words):
    assert exact(answer, right) == exactly
    assert f1(answer, right) == pytest.approx(words)


@given(answer=st.text(max_size=20), right=st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_scores_are_shares_and_further_right_answers_never_hurt(answer, right):
    for measure in METRICS.values():
        assert 0 <= measure(answer, right[:1]) <= measure(answer, right) <= 1
        assert measure(answer, [*right, answer]) == 1
    assert exact(answer, right) <= f1(answer, right)
    assert normal(normal(answer)) == normal(answer)
