"""What a run tells: rows of metrics on the console, in log.jsonl, in TensorBoard and W&B, and sheets of images beside them.

Stages give a metric as (sum, count). A row shows sum over count of the whole global batch and of all steps since the last
row; a metric whose count is 0 is an amount (tokens, images) and is shown per second, as `NAME_per_second`. The loop adds
`data_wait`: the seconds a step has waited for its batches, mean over steps and processes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file

Sums = dict[str, list[Any]]  # name -> [sum, count], numbers or scalar tensors


def add_metrics(sums: Sums, metrics: Mapping[str, Iterable[float | torch.Tensor]]) -> None:
    """Adds (sum, count) pairs to `sums`, in place; both may be scalar tensors, which are not read here."""
    for name, pair in metrics.items():
        value, count = (number.detach() if isinstance(number, torch.Tensor) else number for number in pair)
        held = sums.setdefault(name, [0.0, 0.0])
        held[0], held[1] = held[0] + value, held[1] + count


def merged(parts: Iterable[Sums]) -> Sums:
    """The sums of several processes as one, in plain numbers."""
    total: Sums = {}
    for part in parts:
        add_metrics(total, {name: (float(value), float(count)) for name, (value, count) in part.items()})
    return total


def plain(sums: Sums) -> Sums:
    """The same with every tensor read."""
    return merged([sums])


def means(sums: Sums, seconds: float) -> dict[str, float]:
    """Sum over count of every name; amounts (count 0) per second."""
    rates = {f"{name}_per_second": value / max(seconds, 1e-9) for name, (value, count) in sums.items() if count == 0}
    return {name: value / count for name, (value, count) in sums.items() if count != 0} | rates


class RunLog:
    """The log of one run directory, used as a context; on processes other than the main one (`active` False) it is silent.

    start: the step the run resumes at. Rows of later steps, left by a run that was killed, are taken out of log.jsonl, so that
    the file reads like that of an uninterrupted run.
    """

    def __init__(
        self, out: Path, start: int, steps: int, tensorboard: bool = True, active: bool = True, wandb: str = ""
    ) -> None:
        self.path, self.start, self.steps, self.active = out / "log.jsonl", start, steps, active
        self.began = time.monotonic()
        self.console = Console(quiet=not active, soft_wrap=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (active and self.console.is_terminal),
        )
        self.task = self.progress.add_task(out.name, total=steps, completed=start, note="")
        self.tensorboard = out / "tensorboard" if tensorboard else None
        self.writer: Any = None
        self.samples = out / "samples"
        self.wandb: Any = _wandb_run(out, wandb) if active and wandb else None
        if active:
            out.mkdir(parents=True, exist_ok=True)
            _keep_rows(self.path, start)

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.progress.stop()
        if self.writer is not None:
            self.writer.close()
        if self.wandb is not None:
            self.wandb.finish(exit_code=int(failure[0] is not None))

    def say(self, text: str) -> None:
        """One line for the person at the console."""
        self.console.print(text, markup=False)

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        self.progress.update(self.task, completed=step)

    def row(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Writes the metrics after `step` steps everywhere; returns the row as it stands in log.jsonl."""
        row = {"step": step, **{name: float(f"{value:.7g}") for name, value in metrics.items()}}
        if not self.active:
            return row
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error.strerror}; the last checkpoint is intact") from error
        if self.tensorboard is not None:
            self.writer = self.writer or _summary_writer(self.tensorboard, self.start)
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(dict(metrics), step=step)
        pace = (time.monotonic() - self.began) / max(1, step - self.start)
        left = f"left={_clock((self.steps - step) * pace)}"
        self.say(" ".join(f"{name}={value:.5g}" for name, value in row.items() if name != "seconds") + " " + left)
        if "loss" in metrics:
            self.progress.update(self.task, note=f"loss {metrics['loss']:.4g}")
        return row

    def show(self, step: int, sheets: Mapping[str, np.ndarray]) -> None:
        """Writes sheets of images (uint8 [H, W, 3]) after `step` steps everywhere: as samples/NAME-STEP.png in any case."""
        if not self.active:
            return
        for name, image in sheets.items():
            with atomic_file(self.samples / f"{name}-{step:08}.png") as temporary:
                Image.fromarray(image).save(temporary, "PNG")
            if self.tensorboard is not None:
                self.writer = self.writer or _summary_writer(self.tensorboard, self.start)
                self.writer.add_image(name, image, step, dataformats="HWC")
            if self.wandb is not None:
                self.wandb.log({name: import_module("wandb").Image(image)}, step=step)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _summary_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError('loop.tensorboard needs a package: install "llada-uni[train]", or set it to false') from error
    return SummaryWriter(str(folder), purge_step=start + 1)


def _wandb_run(out: Path, project: str) -> Any:
    """A run of Weights & Biases by the name of the run directory, gone on with where there is one."""
    try:
        wandb = import_module("wandb")
    except ImportError as error:
        raise UserError('loop.wandb needs a package: pip install wandb, or set it to ""') from error
    identity = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
    return wandb.init(project=project, name=out.name, id=identity, dir=str(out), resume="allow")


def _keep_rows(path: Path, start: int) -> None:
    """Leaves only the whole rows of steps up to `start`."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # a kill cut the last line
            continue
        if row.get("step", 0) <= start:
            kept.append(line + "\n")
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
