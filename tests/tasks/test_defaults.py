"""Rules, confidences and SPRINT as settings of a model directory and as keywords of a call."""

from __future__ import annotations

import pytest

from llada_uni.errors import UserError
from llada_uni.generation.params import Sprint
from llada_uni.tasks.defaults import Defaults, adjusted


def test_rules_and_sprint_come_from_the_file_and_reach_the_sampling():
    data = {
        "generate": {"codes": {"rule": "adaptive", "threshold": 0.93, "sprint": {"r_text": 1.0, "r_img": 0.8}}},
        "understand": {"text": {"rule": "entropy", "confidence": "entropy"}},
    }
    defaults = Defaults.from_json(data)
    codes = defaults.generate.codes
    assert (codes.steps, codes.rule, codes.threshold) == (8, "adaptive", 0.93)
    assert codes.sprint == Sprint(r_text=1.0, r_img=0.8)
    words = defaults.understand.text
    assert (words.steps, words.rule, words.confidence, words.sprint) == (32, "entropy", "entropy", None)
    assert Defaults.from_json(defaults.to_json()) == defaults


def test_a_call_may_change_them():
    codes = adjusted(Defaults().generate.codes, rule="factor", confidence="margin", sprint={"r": 0.3})
    assert (codes.rule, codes.confidence, codes.sprint) == ("factor", "margin", Sprint(r=0.3))
    assert adjusted(codes, sprint=Sprint(r=1.0)).sprint == Sprint(r=1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "best"}, "rule must be one of threshold, left, adaptive, entropy, factor, sprint, t2t, t2m, not 'best'"),
        ({"confidence": 1}, "confidence must be one of probability, margin, entropy, neg_entropy, random, not 1"),
        ({"sprint": 0.5}, "sprint must be a group of settings or null, not 0.5"),
        (
            {"sprint": {"share": 0.5}},
            "sprint: unknown setting 'share'; known: r, r_text, r_img, alpha, keep_ratio, warmup, "
            "image_keep_ratio, text_keep_ratio",
        ),
        ({"sprint": {"r": "half"}}, "sprint: r must be a number from 0 to 1, not 'half'"),
        ({"sprint": {"r": 2}}, "sprint: r must be a number from 0 to 1, not 2"),
    ],
)
def test_impossible_ones_are_named(given, message):
    with pytest.raises(UserError) as error:
        adjusted(Defaults().generate.codes, **given)
    assert str(error.value) == message
