"""What a task shows while it runs: grids of codes, and when partial pictures are painted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from llada_uni.results import Progress
from llada_uni.serving.events import Draft, PartialPicture, TextDelta
from llada_uni.serving.scheduler import progress as drafts
from llada_uni.serving.scheduler.progress import NOTHING, Reporter

PARTS = SimpleNamespace(config=SimpleNamespace(image_token_offset=100), decoder=SimpleNamespace(variants=("turbo", "base")))


@pytest.fixture
def painted(monkeypatch):
    """Codes that were painted, in order."""
    seen = []

    def paint(parts, codes, decoder, steps, seed):
        seen.append((codes.codes, decoder, seed))
        return Image.new("RGB", (4, 4)), steps

    monkeypatch.setattr(drafts, "paint", paint)
    return seen


def block(start: int, codes: list[int], settled: list[int], done: int, grid=(3, 2)) -> Progress:
    tokens = tuple(100 + code for code in codes)
    sure = tuple(0.5 for _ in codes)
    return Progress("codes", done, grid[0] * grid[1], tokens, tuple(map(bool, settled)), start, sure, grid)


def test_a_grid_fills_block_by_block(painted):
    events = []
    report = Reporter(PARTS, events.append, "answer")
    report(block(0, [1, 2, 3], [1, 0, 0], 1))
    report(block(0, [1, 4, 3], [1, 1, 1], 3))
    report(block(3, [7, 8, 9], [0, 0, 1], 4))
    assert [event.tokens for event in events] == [
        (1, 2, 3, NOTHING, NOTHING, NOTHING),
        (1, 4, 3, NOTHING, NOTHING, NOTHING),
        (1, 4, 3, 7, 8, 9),
    ]
    assert events[-1].settled == (True, True, True, False, False, True) and events[0].confidences == (0.5,) * 3 + (0.0,) * 3
    assert events[-1].grid == (3, 2) and (events[-1].done, events[-1].total) == (4, 6) and painted == []


def test_partial_pictures_are_spread_over_the_places(painted):
    events = []
    report = Reporter(PARTS, events.append, "answer", partials=3, seed=8)
    for done in (1, 1, 2, 3, 4, 5, 6):
        report(block(0, [1, 2, 3, 4, 5, 6], [1] * done + [0] * (6 - done), done))
    at = [events[i - 1].done for i, event in enumerate(events) if isinstance(event, PartialPicture)]
    assert at == [1, 2, 4], "with the first draft, then when a third and two thirds are settled"
    assert [event.index for event in events if isinstance(event, PartialPicture)] == [0, 1, 2]
    assert {(decoder, seed) for _, decoder, seed in painted} == {("turbo", 8)}


def test_places_without_a_draft_take_the_code_above_them(painted):
    report = Reporter(PARTS, [].append, "answer", partials=1)
    report(block(0, [5], [0], 0))
    report(Progress("decode", 1, 2))
    report(block(0, [1, 2, 3], [0, 0, 0], 0))
    assert [codes for codes, _, _ in painted] == [(5, 5, 5, 5, 5, 5), (1, 2, 3, 2, 3, 2)]


def test_every_picture_has_its_own_partial_pictures(painted):
    events = []
    report = Reporter(PARTS, events.append, "answer", partials=1)
    report(block(0, [1, 2], [1, 0], 1, (1, 2)))
    report(Progress("text", 1, 9, text="a cat"))
    report(block(0, [3, 4, 5], [1, 0, 0], 1, (1, 3)))
    assert [event.index for event in events if isinstance(event, PartialPicture)] == [0, 0]
    assert [event.grid for event in events if isinstance(event, Draft)] == [(1, 2), None, (1, 3)]
    assert TextDelta("a cat", "answer") in events


def test_the_base_decoder_paints_where_there_is_no_other(painted):
    parts = SimpleNamespace(config=PARTS.config, decoder=SimpleNamespace(variants=("base",)))
    Reporter(parts, [].append, "answer", partials=1)(block(0, [1, 2], [1, 0], 1, (1, 2)))
    assert painted[0][1] == "base"
