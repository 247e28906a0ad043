"""The benchmark of a training step: both sides compute the same loss and gradient, and it reports both."""

from __future__ import annotations

import pytest

from benchmarks.training_step import Case, measure
from llada_uni.backbone import Backbone
from tests.backbone.helpers import small_config


def test_both_sides_agree_and_are_reported():
    case = Case("tiny", lambda: Backbone(small_config(max_position_embeddings=256)), 4, 30, 16, 8, 256, 1)
    step, memory = measure(case, repeats=1)  # asserts that losses and gradients agree
    assert step.more["loss"] == pytest.approx(step.more["their loss"], rel=1e-4)
    assert step.ours > 0 and step.theirs > 0 and step.unit == "tokens/s" and memory.unit == "MiB"
