"""Lanes: order, groups of equal pictures, and pictures that end early."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from llada_uni.image.codes import ImageCodes
from llada_uni.serving.scheduler.lanes import Lanes, try_together
from tests.serving.conftest import PATIENCE, wait_until

CODES = ImageCodes(tuple(range(16)), 4, 4)


class Recorder:
    """A decoder that notes its groups and waits for permission."""

    def __init__(self) -> None:
        self.groups: list[list[tuple[int, ...]]] = []
        self.go = threading.Event()
        self.broken = False

    def decode_many(self, pictures, variant, steps, generators, on_step, batch, multiplier):
        self.groups.append([codes.codes for codes in pictures])
        assert self.go.wait(PATIENCE)
        if self.broken:
            raise RuntimeError("broken")
        on_step(1, steps)
        return [Image.new("RGB", (codes.codes[0] + 1, 1)) for codes in pictures]


def codes(first: int, side: int = 4) -> ImageCodes:
    return ImageCodes((first,) * side * side, side, side)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(12) as threads:
        yield threads


@pytest.fixture
def decoder():
    recorder = Recorder()
    yield recorder
    recorder.go.set()


def nothing(*args) -> None:
    pass


def order(pool, lanes, decoder, picture, steps=2, check=nothing, on_step=nothing):
    waiting = len(lanes._waiting)
    future = pool.submit(lanes.decode, decoder, picture, "turbo", steps, torch.Generator(), check, on_step)
    wait_until(lambda: decoder.groups and (len(lanes._waiting) > waiting or future.done() or not waiting), "it stands in line")
    return future


def test_those_who_wait_are_taken_in_groups_of_their_like(pool, decoder):
    lanes = Lanes(1, together=3)
    first = order(pool, lanes, decoder, codes(0))
    others = []
    for picture, steps in ((codes(1), 2), (codes(2, 2), 2), (codes(3), 2), (codes(4), 5), (codes(5), 2), (codes(6), 2)):
        count = len(lanes._waiting)
        others.append(pool.submit(lanes.decode, decoder, picture, "turbo", steps, torch.Generator(), nothing, nothing))
        wait_until(lambda count=count: len(lanes._waiting) == count + 1, "it stands in line")
    assert lanes.crowded
    decoder.go.set()
    assert [future.result(PATIENCE).width for future in [first, *others]] == [1, 2, 3, 4, 5, 6, 7]
    assert [[one[0] for one in group] for group in decoder.groups] == [[0], [1, 3, 5], [2], [4], [6]]
    assert not lanes.crowded


def test_large_pictures_are_decoded_alone(pool, decoder):
    lanes = Lanes(1, together=4)
    futures = [order(pool, lanes, decoder, codes(0, 9))]
    for first in (1, 2):
        futures.append(pool.submit(lanes.decode, decoder, codes(first, 9), "turbo", 2, torch.Generator(), nothing, nothing))
    wait_until(lambda: len(lanes._waiting) == 2, "they stand in line")
    decoder.go.set()
    assert all(future.result(PATIENCE) for future in futures)
    assert [len(group) for group in decoder.groups] == [1, 1, 1]


def test_a_picture_nobody_wants_leaves_the_line_and_harms_nobody(pool, decoder):
    lanes, gone = Lanes(1, together=4), threading.Event()

    def check():
        if gone.is_set():
            raise KeyError("gone")

    first = order(pool, lanes, decoder, codes(0))
    waits = pool.submit(lanes.decode, decoder, codes(1), "turbo", 2, torch.Generator(), check, nothing)
    stays = pool.submit(lanes.decode, decoder, codes(2), "turbo", 2, torch.Generator(), nothing, nothing)
    wait_until(lambda: len(lanes._waiting) == 2, "they stand in line")
    gone.set()
    with pytest.raises(KeyError):
        waits.result(PATIENCE)
    assert len(decoder.groups) == 1, "its worker did not wait for the lane"
    decoder.go.set()
    assert first.result(PATIENCE).width == 1 and stays.result(PATIENCE).width == 3


def test_one_of_a_group_ends_early_and_the_others_do_not(pool, decoder):
    lanes = Lanes(1, together=4)
    first = order(pool, lanes, decoder, codes(0))

    def gone(done, evaluations):
        raise KeyError("gone")

    ends = pool.submit(lanes.decode, decoder, codes(1), "turbo", 2, torch.Generator(), nothing, gone)
    stays = pool.submit(lanes.decode, decoder, codes(2), "turbo", 2, torch.Generator(), nothing, nothing)
    wait_until(lambda: len(lanes._waiting) == 2, "they stand in line")
    decoder.go.set()
    with pytest.raises(KeyError):
        ends.result(PATIENCE)
    assert first.result(PATIENCE).width == 1 and stays.result(PATIENCE).width == 3


def test_a_broken_decoder_gives_the_lane_back(pool, decoder):
    lanes, decoder.broken = Lanes(1), True
    decoder.go.set()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            lanes.decode(decoder, codes(0), "turbo", 2, torch.Generator(), nothing, nothing)
    with lanes.lane():
        assert lanes._free == 0
    assert lanes._free == 1


def test_encoding_goes_before_pictures_that_wait(pool, decoder):
    lanes, order_of_events = Lanes(1), []
    first = order(pool, lanes, decoder, codes(0))
    second = pool.submit(
        lanes.decode, decoder, codes(1), "turbo", 2, torch.Generator(), nothing, lambda *step: order_of_events.append("decode")
    )
    wait_until(lambda: lanes.crowded, "a picture waits")

    def encode():
        with lanes.lane():
            order_of_events.append("encode")

    short = pool.submit(encode)
    wait_until(lambda: lanes._short == 1, "something short waits")
    decoder.go.set()
    for future in (first, second, short):
        future.result(PATIENCE)
    assert order_of_events == ["encode", "decode"]


def test_pictures_of_the_real_decoder_are_tried_together(model):
    assert try_together(model.parts.decoder, 4, 4, "turbo"), "same bits together and alone"
    assert not try_together(model.parts.decoder, 32, 32, "turbo"), "large ones are not tried"


def test_where_the_bits_differ_pictures_stay_alone(model, monkeypatch):
    decoder = model.parts.decoder
    other = [Image.new("RGB", (32, 32))] * 4
    monkeypatch.setattr(decoder, "decode_many", lambda *args, **more: other)
    assert not try_together(decoder, 4, 4, "turbo")
