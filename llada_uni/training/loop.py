"""The one training loop: it owns stepping, clipping, the schedule, the log and resumable checkpoints.

An objective gives `loss(step, rng)` for its own data; the loop calls it, steps AdamW, writes `log.jsonl`, and saves
`checkpoint.pt` (weights, optimizer, step) atomically, so that a killed run goes on where it last saved.
Data of step s depends only on (seed, s): a resumed run sees the same data as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llada_uni.checkpoint.files import atomic_file
from llada_uni.errors import UserError


@dataclass
class LoopConfig:
    """steps: optimizer steps in all; lr: peak learning rate; warmup: steps of linear rise; decay: "cosine" | "wsd".

    With "wsd" (warm-up, stable, decay) the rate stays at its peak and falls linearly over the last
    `decay_fraction` of the steps. clip: norm of the whole gradient. save_seconds: time between checkpoints.
    """

    steps: int
    lr: float
    out: str
    warmup: int = 100
    decay: str = "cosine"
    decay_fraction: float = 0.3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    seed: int = 0
    save_seconds: float = 120.0
    log_every: int = 50


def learning_rate(config: LoopConfig, step: int) -> float:
    """Learning rate of optimizer step `step` (from 0)."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.decay == "cosine":
        done = (step - config.warmup) / max(1, config.steps - config.warmup)
        return config.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
    if config.decay == "wsd":
        tail = max(1, round(config.steps * config.decay_fraction))
        return config.lr * max(0.02, min(1.0, (config.steps - step) / tail))
    raise UserError(f"unknown decay {config.decay!r}; known: cosine, wsd")


def save_atomic(state: dict, path: Path) -> None:
    """Writes a checkpoint beside its final place and moves it there, so that no reader sees half a file."""
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def run(
    modules: nn.ModuleDict,
    loss: Callable[[int, random.Random], tuple[Tensor, dict[str, float]]],
    config: LoopConfig,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """Trains the parameters of `modules` that want gradients until `config.steps`; resumes from `out/checkpoint.pt`.

    loss(step, rng) -> (scalar tensor, numbers for the log). after_step(step) runs after each optimizer step
    (balancing, moving averages). Raises UserError when the loss is not finite, keeping the last checkpoint.
    """
    out = Path(config.out)
    params = [p for p in modules.parameters() if p.requires_grad]
    decayed = [p for p in params if p.dim() >= 2]
    plain = [p for p in params if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    start = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        print(f"resuming {out} at step {start}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    saved = began = time.monotonic()
    sums: dict[str, float] = {}
    summed = 0
    for step in range(start, config.steps):
        rng = random.Random(config.seed * 1_000_003 + step)
        torch.manual_seed(config.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        value, numbers = loss(step, rng)
        if not torch.isfinite(value):
            raise UserError(f"loss is {value.item()} at step {step}; the last checkpoint in {out} is intact")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(params, config.clip)
        optimizer.step()
        if after_step is not None:
            after_step(step)
        for key, number in {"loss": value.item(), "norm": float(norm), **numbers}.items():
            sums[key] = sums.get(key, 0.0) + number
        summed += 1
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            row = {k: round(v / summed, 5) for k, v in sums.items()}
            elapsed = time.monotonic() - began
            rate = (step + 1 - start) / elapsed
            row = {"step": step + 1, "seconds": round(elapsed, 1), "steps_per_second": round(rate, 3), **row}
            with open(out / "log.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
            left = (config.steps - step - 1) / rate
            print(" ".join(f"{k}={v}" for k, v in row.items()), f"left={left / 60:.1f}min", flush=True)
            sums, summed = {}, 0
        if time.monotonic() - saved > config.save_seconds or step + 1 == config.steps:
            state = {"modules": modules.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            save_atomic(state, checkpoint)
            saved = time.monotonic()
