"""Token buckets: even filling, one for each caller, and no more of them than fit."""

from __future__ import annotations

import pytest

from llada_uni.serving.http import ratelimit
from llada_uni.serving.http.ratelimit import RateLimit


def test_a_bucket_fills_evenly():
    now = [0.0]
    rate = RateLimit(3, clock=lambda: now[0])
    assert [rate.wait("a") for _ in range(4)] == [None, None, None, 20.0]
    assert rate.wait("b") is None, "callers have a bucket each"
    now[0] = 15
    assert rate.wait("a") == pytest.approx(5)
    now[0] = 20
    assert rate.wait("a") is None
    now[0] = 10_000
    assert [rate.wait("a") for _ in range(4)][:3] == [None] * 3


def test_less_than_one_a_minute():
    now = [0.0]
    rate = RateLimit(0.5, clock=lambda: now[0])
    assert [rate.wait("a"), rate.wait("a")] == [None, 120.0]


def test_made_up_callers_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(ratelimit, "MAX_CALLERS", 50)
    rate = RateLimit(1)
    for number in range(1000):
        rate.wait(f"caller {number}")
    assert len(rate._buckets) == 50
