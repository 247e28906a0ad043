"""What a task shows while it runs: text, grids of codes, and when partial images are decoded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from llada_uni.results import NO_CODE, PartialImage, Progress, TextDelta
from llada_uni.serving.scheduler.progress import Reporter
from llada_uni.tasks import preview as module

PARTS = SimpleNamespace(decoder=SimpleNamespace(variants=("turbo", "base")), drafter=None)


@pytest.fixture
def decoded(monkeypatch):
    """Codes that were decoded, in order."""
    seen = []

    def decode(parts, codes, asked, seed):
        seen.append((codes.codes, asked.decoder, seed))
        return Image.new("RGB", (4, 4)), asked.decoder_steps

    monkeypatch.setattr(module, "decode", decode)
    return seen


def state(codes: list[int], accepted: int, grid=(3, 2)) -> Progress:
    """Progress with these codes in the first positions, the first `accepted` of them final."""
    total = grid[0] * grid[1]
    rest = total - len(codes)
    final = tuple(position < accepted for position in range(total))
    return Progress(
        "codes", accepted, total, "", grid, (*codes, *[NO_CODE] * rest), final, (0.5,) * len(codes) + (0.0,) * rest
    )


def test_partial_images_are_spread_over_the_positions(decoded):
    events = []
    report = Reporter(PARTS, events.append, partials=3, seed=8)
    for done in (1, 1, 2, 3, 4, 5, 6):
        report(state([1, 2, 3, 4, 5, 6], done))
    at = [events[i - 1].done for i, event in enumerate(events) if isinstance(event, PartialImage)]
    assert at == [1, 2, 4], "with the first proposals, then when a third and two thirds are accepted"
    assert [event.index for event in events if isinstance(event, PartialImage)] == [0, 1, 2]
    assert {(decoder, seed) for _, decoder, seed in decoded} == {("turbo", 8)}


def test_positions_without_a_code_take_the_one_above_them(decoded):
    report = Reporter(PARTS, [].append, partials=1)
    report(state([5], 0))
    report(Progress("decode", 1, 2))
    report(state([1, 2, 3], 0))
    assert [codes for codes, _, _ in decoded] == [(5, 5, 5, 5, 5, 5), (1, 2, 3, 2, 3, 2)]


def test_every_image_has_its_own_partial_images(decoded):
    events = []
    report = Reporter(PARTS, events.append, partials=1)
    report(state([1, 2], 1, (1, 2)))
    report(Progress("text", 1, 9, "a cat"))
    report(state([3, 4, 5], 1, (1, 3)))
    assert [event.index for event in events if isinstance(event, PartialImage)] == [0, 0]
    assert [event.grid for event in events if isinstance(event, Progress)] == [(1, 2), None, (1, 3)]
    assert TextDelta("a cat") in events and Progress("text", 1, 9) in events


def test_text_of_a_task_that_reasons_is_marked(decoded):
    events = []
    Reporter(PARTS, events.append, reasoning=True)(Progress("text", 1, 9, "two cats"))
    assert events[0] == TextDelta("two cats", reasoning=True)


def test_the_base_decoder_is_used_where_there_is_no_other(decoded):
    parts = SimpleNamespace(decoder=SimpleNamespace(variants=("base",)), drafter=None)
    Reporter(parts, [].append, partials=1)(state([1, 2], 1, (1, 2)))
    assert decoded[0][1] == "base"
