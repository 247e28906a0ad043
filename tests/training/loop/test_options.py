"""Learning rates: a rise, then constant, cosine, or stable and a fall."""

from __future__ import annotations

from typing import get_args

import pytest

from llada_uni.training.loop import options
from llada_uni.training.loop.options import LoopOptions, Schedule


def rate_factor(schedule, step, steps, warmup, decay_fraction, minimum):
    loop = LoopOptions(
        steps=steps, schedule=schedule, warmup=warmup, decay_fraction=decay_fraction, min_lr_fraction=minimum
    )
    return options.rate_factor(loop, step)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_the_warm_up_rises_to_the_peak(schedule):
    rise = [rate_factor(schedule, step, 100, 10, 0.2, 0.0) for step in range(10)]
    assert rise == pytest.approx([(step + 1) / 10 for step in range(10)])


def test_constant_stays():
    assert {rate_factor("constant", step, 100, 10, 0.2, 0.0) for step in range(10, 100)} == {1.0}


def test_wsd_holds_then_falls_in_a_line_to_its_floor():
    rate = [rate_factor("wsd", step, 100, 10, 0.2, 0.05) for step in range(100)]
    assert rate[10] == rate[79] == 1.0
    assert rate[90] == pytest.approx(0.5)
    assert rate[99] == pytest.approx(0.05)


def test_cosine_falls_from_the_peak_to_its_floor():
    rate = [rate_factor("cosine", step, 100, 10, 0.2, 0.02) for step in range(101)]
    assert rate[10] == 1.0
    assert rate[55] == pytest.approx(0.02 + 0.98 * 0.5)
    assert rate[100] == pytest.approx(0.02)


def test_without_warm_up_the_first_step_has_the_peak():
    assert rate_factor("cosine", 0, 10, 0, 0.2, 0.0) == 1.0
