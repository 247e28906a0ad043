"""Short runs of the loop on the small stages, and what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from llada_uni.training.loop.parallel import ParallelOptions
from llada_uni.training.loop.prefetch import draw
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Loss, Stage
from llada_uni.training.loop.trainer import LoopOptions, run
from tests.training.helpers.stages import STAGES

CLOCK = ("seconds", "per_second", "data_wait", "mfu", "memory_gb")


def fit(
    processes: Processes,
    name: str,
    out: Path,
    loop: dict[str, Any] | None = None,
    parallel: dict[str, Any] | None = None,
    stop_after: int | None = None,
    **stage: Any,
) -> dict[str, Any]:
    """Trains the stage `name` into `out`; loop, parallel: options that differ from a short run's."""
    torch.set_num_threads(1)
    small = {"steps": 6, "micro_batches": 4, "warmup": 2, "log_every": 1, "lr": 0.02, "ema": 0.8, "save_seconds": 0.0}
    options = LoopOptions(**{**small, "tensorboard": False, **(loop or {})})
    trained = STAGES[name](processes, **stage)
    return run(trained, options, out, 5, ParallelOptions(**(parallel or {})), processes, {"stage": name}, stop_after)


def loss_of(stage: Stage, step: int = 0, micro_batch: int = 0, seed: int = 0) -> Loss:
    """The loss of one micro-batch, drawn and seeded as the loop does."""
    drawn = draw(stage, seed, step, micro_batch)
    drawn.seed_global()
    return stage.loss(drawn.batch)


def rows(out: Path) -> list[dict[str, float]]:
    """The log of a run without the numbers that depend on the clock."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith(CLOCK)} for row in lines]
