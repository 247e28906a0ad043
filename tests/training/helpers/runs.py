"""Short runs of the loop on the small objectives, and what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from llada_uni.training.loop.parallel import ParallelOptions
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from tests.training.helpers.objectives import OBJECTIVES

CLOCK = ("seconds", "per_second")


def fit(
    processes: Processes,
    name: str,
    out: Path,
    loop: dict[str, Any] | None = None,
    parallel: dict[str, Any] | None = None,
    stop_after: int | None = None,
    **objective: Any,
) -> dict[str, Any]:
    """Trains the objective `name` into `out`; loop, parallel: options that differ from a short run's."""
    torch.set_num_threads(1)
    small = {"steps": 6, "micro_batches": 4, "warmup": 2, "log_every": 1, "lr": 0.02, "ema": 0.8, "save_seconds": 0.0}
    options = LoopOptions(**{**small, "tensorboard": False, **(loop or {})})
    trained = OBJECTIVES[name](processes, **objective)
    return run(trained, options, out, 5, ParallelOptions(**(parallel or {})), processes, {"stage": name}, stop_after)


def rows(out: Path) -> list[dict[str, float]]:
    """The log of a run without the numbers that depend on the clock."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith(CLOCK)} for row in lines]
