"""One process, and two that talk: micro-batches, sums, flags."""

from __future__ import annotations

import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.training.loop.ranks import Processes
from tests.training.helpers.together import together


def test_micro_batches_are_shared_out_evenly_and_completely():
    shares = [Processes(rank, 3).micro_batches(6) for rank in range(3)]
    assert shares == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(UserError, match="multiple of 3"):
        Processes(0, 3).micro_batches(4)


def test_one_process_needs_no_group():
    alone = Processes()
    assert alone.is_main and alone.gather("x") == ["x"] and alone.any([True, False]) == [True, False]
    assert alone.sum(torch.ones(2)).tolist() == [1.0, 1.0]
    alone.barrier()


def _talk(processes):
    mine = torch.tensor([1.0, processes.rank])
    flags = processes.any([processes.rank == 1, False])
    processes.barrier()
    return processes.rank, processes.sum(mine).tolist(), processes.gather(f"rank {processes.rank}"), flags


def test_two_processes_add_gather_and_agree():
    same = ([2.0, 1.0], ["rank 0", "rank 1"], [True, False])
    assert together(2, _talk) == [(0, *same), (1, *same)]
