"""Batches ahead of time: the same ones, no more than asked for, exact states, and nothing taken from the global generator."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from llada_uni.errors import UserError
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.loop.prefetch import Prefetcher, draw, map_tensors, named_tensors, seeded
from llada_uni.training.loop.ranks import Processes
from tests.training.helpers.runs import fit, loss_of, rows
from tests.training.helpers.stages import Line

ALONE, CPU = Processes(), torch.device("cpu")
ORDER = [(step, micro_batch) for step in range(5) for micro_batch in range(2)]


def test_the_seeds_of_a_micro_batch_depend_on_seed_step_and_number_alone():
    draws = set()
    for seed, step, number in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 10, 1), (0, 1, 1)):
        first, again = seeded(seed, step, number), seeded(seed, step, number)
        draws.add((first.python.random(), torch.rand((), generator=first.torch).item()))
        assert (again.python.random(), torch.rand((), generator=again.torch).item()) in draws
    assert len(draws) == 6


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_a_thread_gives_the_batches_of_none_in_order_with_their_states(ahead):
    with Prefetcher(Line(), 5, ORDER, 0, CPU) as plain, Prefetcher(Line(), 5, ORDER, ahead, CPU) as early:
        for step, micro_batch in ORDER:
            one, other = plain.take(), early.take()
            assert (one.batch.step, one.micro_batch) == (other.batch.step, other.micro_batch) == (step, micro_batch)
            assert torch.equal(one.batch.x, other.batch.x) and torch.equal(one.noise, other.noise)
            assert one.reader_state == other.reader_state == {"position": (step + 1) * (1 + micro_batch)}
        for prefetcher in (plain, early):
            with pytest.raises(StopIteration):
                prefetcher.take()


def test_no_more_are_drawn_than_asked_for_and_the_thread_ends():
    stage, threads = Line(), threading.active_count()
    with Prefetcher(stage, 5, ORDER, 2, CPU) as batches:
        batches.take()
        _until(lambda: len(stage.drawn) == 3)
        time.sleep(0.05)
        assert len(stage.drawn) == 3  # the one that was taken, and two ahead
    assert threading.active_count() == threads


def _until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never came to that")


def test_waiting_for_data_is_measured_and_less_with_a_thread():
    waited = {}
    for ahead in (0, 2):
        with Prefetcher(Line(slow=0.05), 5, ORDER[:6], ahead, CPU) as batches:
            for _ in range(6):
                batches.take()
                time.sleep(0.06)  # the step
            waited[ahead] = batches.waited
    assert waited[0] >= 0.3 and waited[2] < 0.8 * waited[0]


def test_what_the_batch_raises_comes_out_of_take_as_it_was():
    class Broken(Line):
        def batch(self, step, micro_batch, generators):
            if step == 1:
                raise UserError("record 7 is no record")
            return super().batch(step, micro_batch, generators)

    with Prefetcher(Broken(), 5, ORDER, 3, CPU) as batches:
        batches.take(), batches.take()
        with pytest.raises(UserError, match=r"^record 7 is no record$"):
            batches.take()


def test_runs_with_and_without_are_the_same_also_when_stopped_and_resumed(tmp_path):
    fit(ALONE, "line", tmp_path / "none", {"prefetch": 0})
    for ahead in (1, 7):
        out = tmp_path / str(ahead)
        fit(ALONE, "line", out, {"prefetch": ahead}, stop_after=2)  # by then more has been drawn than was used
        fit(ALONE, "line", out, {"prefetch": ahead})
        assert rows(out) == rows(tmp_path / "none")
        whole, parts = load_full(tmp_path / "none"), load_full(out)
        assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_log_tells_how_long_a_step_waited(tmp_path):
    fit(ALONE, "line", tmp_path, {"prefetch": 0, "steps": 2}, slow=0.02)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2 and all(row["data_wait"] >= 4 * 0.02 for row in log)  # four micro-batches a step


def test_drawing_leaves_the_global_generator_alone_and_the_loss_goes_on_from_its_own():
    stage, before = Line(), torch.get_rng_state()
    drawn = draw(stage, 5, 1, 2)
    assert torch.equal(before, torch.get_rng_state())
    drawn.seed_global()
    own = seeded(5, 1, 2)
    torch.randn(drawn.batch.x.shape, generator=own.torch)  # what `batch` drew
    assert torch.equal(torch.rand(3), torch.rand(3, generator=own.torch))
    assert loss_of(Line(), 1, 2, 5).total == loss_of(Line(), 1, 2, 5).total


class Pair(NamedTuple):
    first: Tensor
    others: dict[str, Tensor | int]


@dataclass(frozen=True)
class Nested:
    pair: Pair
    listed: list[Tensor | str]
    nothing: None = None


def test_tensors_are_found_in_every_container():
    one = torch.ones(1)
    batch = Nested(Pair(one, {"a": one, "n": 3}), [one, "word"])
    doubled = map_tensors(lambda tensor: tensor * 2, batch)
    assert doubled == Nested(Pair(one * 2, {"a": one * 2, "n": 3}), [one * 2, "word"])
    assert set(named_tensors(batch)) == {"pair.first", "pair.others.a", "listed.0"}
    assert set(named_tensors(one)) == {"batch"} and set(named_tensors((one, 1))) == {"0"}
