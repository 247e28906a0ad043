"""The one training loop: it owns stepping, accumulation, clipping, the schedule, EMA, the log, evaluation and checkpoints.

A stage (stage.py) -> its micro-batches, drawn ahead of time (prefetch.py) -> their losses -> summed
gradients -> divided by the weight of the whole global batch -> AdamW or Muon -> log.jsonl, checkpoints/, and at the end the
exported part in model/.
Data and noise of a micro-batch depend only on (seed, step, micro-batch) and on the reader's saved state; so a run that was
killed, and a run on another number of processes, see the same batches as an uninterrupted one on one process.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file
from llada_uni.training.loop.checkpoints import Checkpoints
from llada_uni.training.loop.ema import Averages
from llada_uni.training.loop.logs import RunLog, Sums, add_metrics, means, merged, plain
from llada_uni.training.loop.optimizer import gradients, make_optimizer, optimizer_state, scale_gradients, total_norm
from llada_uni.training.loop.options import LoopOptions, rate_factor
from llada_uni.training.loop.parallel import (
    ParallelOptions,
    forget_whole_weights,
    full_state,
    is_sharded,
    parallelize,
    sum_gradients,
)
from llada_uni.training.loop.prefetch import Drawn, Prefetcher, named_tensors, seed_of
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Stage

AFTER_STEP, EVALUATION = -1, -2  # what is seeded beside the micro-batches
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(
    stage: Stage,
    options: LoopOptions,
    out: str | Path,
    seed: int = 0,
    parallel: ParallelOptions | None = None,
    processes: Processes | None = None,
    recipe: dict[str, Any] | None = None,
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Trains `stage` until `options.steps`, from the last complete checkpoint in `out` on where there is one.

    recipe: kept in every checkpoint. stop_after: leave with a checkpoint after so many steps of this call (the schedule still
    counts options.steps). SIGTERM and SIGINT do the same after the step they come in. At the end the trained part is exported
    to out/model. Returns {"step", "finished", "stopped" (why, or None), "metrics" (the last row of the log), "seconds"}.
    UserError: a loss that is not finite, a checkpoint of another configuration or one that cannot be written.
    """
    trainer = Trainer(stage, options, Path(out), seed, parallel or ParallelOptions(), processes or stage.processes)
    start = step = trainer.resume()
    stopped, last = None, options.steps
    if stop_after is not None and start + stop_after < last:
        stopped, last = "stop_after", start + stop_after
    with (
        StopSignals() as signals,
        RunLog(trainer.out, start, options.steps, options.tensorboard, trainer.main) as log,
        trainer.prefetch(start, last) as batches,
    ):
        if start:
            log.say(f"resuming {out} at step {start}")
        for step in range(start + 1, last + 1):  # steps that will be done; the step under way has the index step - 1
            trainer.train_step(step - 1, batches, log)
            log.advance(step)
            if step % options.log_every == 0 or step == options.steps:
                trainer.report(step, log)
            if options.evaluate_every and (step % options.evaluate_every == 0 or step == options.steps):
                trainer.evaluate(step, log)
            stop, due = trainer.processes.any([signals.received is not None, trainer.save_due(step)])
            if stop or due or step == last:
                trainer.save(step, recipe)
            if stop and step < last:
                stopped = signals.received or "signal to another process"
                log.say(f"{stopped}: saved at step {step}; the same command goes on from there")
                break
    finished = step >= options.steps
    if finished:
        trainer.export()
    return {
        "step": step,
        "finished": finished,
        "stopped": None if finished else stopped,
        "metrics": trainer.last_row,
        "seconds": trainer.seconds(),
    }


def plain_attention(wanted: bool) -> AbstractContextManager[None]:
    """torch's fused attention has a slow backward pass in bfloat16 on a CPU; plain products are several times as fast there."""
    return sdpa_kernel(SDPBackend.MATH) if wanted else nullcontext()


class StopSignals:
    """While the context lasts, the first signal only sets `received` (its name); a second one acts as it always does.

    In a thread other than the main one (Ray Train) signals cannot be taken over: they are left alone.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        signal.signal(number, self._former[number])


class Trainer:
    """A stage with its optimizer, averages and checkpoints; one method for each thing that the loop does."""

    def __init__(
        self, stage: Stage, options: LoopOptions, out: Path, seed: int, parallel: ParallelOptions, processes: Processes
    ) -> None:
        self.stage, self.options, self.out, self.seed, self.processes = stage, options, out, seed, processes
        self.main = processes.is_main
        self.mine = processes.micro_batches(options.micro_batches)
        self.reader_states: dict[int, dict[str, Any]] = {}  # behind the last batches that were trained on
        if options.threads:
            torch.set_num_threads(options.threads)
        parallelize(stage, parallel, processes, options.precision)
        stage.train()
        self.weights = {name: weight for name, weight in stage.named_parameters() if weight.requires_grad}
        self.optimizer = make_optimizer(self.weights, options)
        self.averages = Averages(self.weights, options.ema)
        self.checkpoints = Checkpoints(out / "checkpoints", processes, options.keep)
        self.sums: Sums = {}  # since the last row of the log
        self.last_row: dict[str, float] = {}
        self.skips = 0
        self.began = self.saved = self.reported = time.monotonic()
        self.reported_step = 0

    def seconds(self) -> float:
        """Time spent on the run, the calls before a resume included."""
        return time.monotonic() - self.began

    def _state(self) -> dict[str, Any]:
        moments = optimizer_state(self.optimizer, self.weights)
        return {"model": self.stage.state_dict(), "optimizer": moments, "ema": self.averages.values}

    def _fingerprint(self) -> dict[str, Any]:
        own = {"seed": self.seed, "micro_batches": self.options.micro_batches, "ema": self.options.ema > 0}
        return {**self.stage.fingerprint(), **own}

    def resume(self) -> int:
        """Puts everything back to the last complete checkpoint; returns how many steps are done."""
        meta = self.checkpoints.load_last(self._state(), self._fingerprint())
        if meta is not None and meta["step"] >= self.options.steps:  # nothing is left to do
            return meta["step"]
        self.stage.begin(self.options.micro_batches)
        if meta is not None:
            for micro_batch in self.mine:
                self.stage.load_reader_state(micro_batch, meta["readers"][str(micro_batch)])
                self.stage.load_kept_state(micro_batch, meta.get("kept", {}).get(str(micro_batch)))
        self.reader_states = {micro_batch: self.stage.reader_state(micro_batch) for micro_batch in self.mine}
        if meta is None:
            return 0
        self.sums = meta["sums"] if self.main else {}
        self.began -= meta["seconds"]
        self.reported_step = meta["reported"]
        self.reported -= meta["since_report"]
        return meta["step"]

    def prefetch(self, start: int, last: int) -> Prefetcher:
        """This process's micro-batches of the steps with the indices start to last - 1."""
        order = ((step, micro_batch) for step in range(start, last) for micro_batch in self.mine)
        return Prefetcher(self.stage, self.seed, order, self.options.prefetch, self.processes.torch_device)

    def train_step(self, step: int, batches: Prefetcher, log: RunLog) -> None:
        """One optimizer step over the global batch; leaves the weights as they are when it is not finite and may be skipped."""
        options = self.options
        rate = options.lr * rate_factor(options, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        totals, sums, drawn = self._accumulate(batches)
        grads = gradients(self.weights)
        if not is_sharded(self.stage):  # sharded ones are summed in the backward pass
            sum_gradients(grads, self.processes)
        totals = self.processes.sum(totals)
        total, weight, norm = torch.cat([totals, total_norm(grads).double()[None]]).tolist()  # the step's one synchronization
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._not_finite(step, total, drawn, log)
            return
        if weight == 0:
            add_metrics(self.sums, sums)
            self._nothing(step, log)
            return
        self.skips = 0
        norm /= max(weight, 1e-12)
        clipped = min(1.0, options.clip / (norm + 1e-6)) if options.clip else 1.0
        scale_gradients(grads, clipped / max(weight, 1e-12))
        self.optimizer.step()
        self.averages.update(step)
        torch.manual_seed(seed_of(self.seed, step, AFTER_STEP))
        after = self.stage.after_step(step)
        add_metrics(self.sums, sums)
        add_metrics(self.sums, {name: (value, 1.0) for name, value in {**after, "norm": norm, "lr": rate}.items()})

    def _accumulate(self, batches: Prefetcher) -> tuple[torch.Tensor, Sums, list[Drawn]]:
        """Adds up the gradients of this process's micro-batches -> ([total, weight] float64, metrics, the batches)."""
        device = self.processes.torch_device
        low = self.options.precision == "bfloat16" and not is_sharded(self.stage)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        sums: Sums = {}
        used: list[Drawn] = []
        before = batches.waited
        for _ in self.mine:
            drawn = batches.take()
            drawn.seed_global()
            with plain_attention(low and device.type == "cpu"):
                with torch.autocast(device.type, torch.bfloat16, enabled=low):
                    loss = self.stage.loss(drawn.batch)
                loss.total.backward()
            totals += torch.stack([loss.total.detach().double(), totals.new_tensor(loss.weight)])
            add_metrics(sums, {**loss.metrics, "loss": (loss.total, loss.weight)})
            self.reader_states[drawn.micro_batch] = drawn.reader_state
            used.append(drawn)
        add_metrics(sums, {"data_wait": (batches.waited - before, 1.0)})
        return totals, sums, used

    def _not_finite(self, step: int, total: float, used: list[Drawn], log: RunLog) -> None:
        """Saves this process's batches of the step; then UserError, or a line in the log where such steps are skipped."""
        name = f"step-{step:08}.pt" if self.main else f"step-{step:08}-process-{self.processes.rank}.pt"
        path = self.out / "bad-batches" / name
        with atomic_file(path) as temporary:
            torch.save({f"micro_batch {one.micro_batch}": named_tensors(one.batch) for one in used}, temporary)
        what = f"the {'gradient' if math.isfinite(total) else 'loss'} of step {step} is not finite; its batch is in {path}"
        self.skips += 1
        if self.options.on_nan == "stop":
            raise UserError(f"{what}; the last checkpoint is intact (loop.on_nan=skip leaves such steps out)")
        if self.skips > self.options.max_skips:
            raise UserError(f"{what}; {self.skips} steps in a row were not finite (loop.max_skips is {self.options.max_skips})")
        log.say(f"{what}; skipped")

    def _nothing(self, step: int, log: RunLog) -> None:
        """A line in the log for a step without anything to learn; UserError for too many in a row."""
        self.skips += 1
        what = f"step {step}: {self.stage.why_nothing()}"
        if self.skips > self.options.max_skips:
            bound = self.options.max_skips
            raise UserError(f"{what}; {self.skips} steps in a row had nothing to learn (loop.max_skips: {bound})")
        log.say(f"{what}; skipped ({self.skips} in a row)")

    def report(self, step: int, log: RunLog) -> None:
        """A row of the log over the steps since the last one."""
        now = time.monotonic()
        elapsed, steps = now - self.reported, step - self.reported_step
        metrics = means(merged(self.processes.gather(plain(self.sums))), elapsed)
        pace = {"steps_per_second": steps / max(elapsed, 1e-9), "seconds": self.seconds()}
        self.last_row = log.row(step, {**metrics, **pace})
        self.sums, self.reported, self.reported_step = {}, now, step

    def evaluate(self, step: int, log: RunLog) -> None:
        """The stage's own metrics on held-out data, with the averaged weights where there are averages."""
        began = time.monotonic()
        self.stage.eval()
        torch.manual_seed(seed_of(self.seed, step, EVALUATION))
        with torch.no_grad(), self.averages.applied():
            metrics = self.stage.evaluate(step)
        forget_whole_weights(self.stage)
        self.stage.train()
        log.row(step, {f"eval/{name}": value for name, value in metrics.items()})
        self.reported += time.monotonic() - began  # the pace of training does not count it

    def save_due(self, step: int) -> bool:
        """Whether this process finds that a checkpoint is due; the clock of the main one counts."""
        by_steps = self.options.save_every > 0 and step % self.options.save_every == 0
        by_time = 0 < self.options.save_seconds <= time.monotonic() - self.saved
        return by_steps or (by_time and self.main)

    def save(self, step: int, recipe: dict[str, Any] | None) -> None:
        """A checkpoint after `step` steps."""
        mine = {str(micro_batch): state for micro_batch, state in self.reader_states.items()}
        kept = {str(micro_batch): self.stage.kept_state(micro_batch) for micro_batch in self.mine}
        gathered = self.processes.gather((mine, plain(self.sums), kept))
        meta = {
            "seconds": self.seconds(),
            "reported": self.reported_step,
            "since_report": time.monotonic() - self.reported,
            "processes": self.processes.size,
            "fingerprint": self._fingerprint(),
            "readers": {micro_batch: state for states, _, _ in gathered for micro_batch, state in states.items()},
            "kept": {micro_batch: state for _, _, held in gathered for micro_batch, state in held.items() if state is not None},
            "sums": merged(sums for _, sums, _ in gathered),
            "recipe": recipe,
        }
        self.checkpoints.save(step, self._state(), meta)
        self.saved = time.monotonic()

    def export(self) -> None:
        """Gives the whole weights (averaged where there are averages) to `stage.save`, on the main process."""
        with self.averages.applied():
            state = full_state(self.stage, self.processes)
        if self.main:
            try:
                self.stage.save(self.out / "model", state)
            except OSError as error:
                raise UserError(f"{self.out / 'model'} could not be written: {error}; the last checkpoint is intact") from error
        self.processes.barrier()
