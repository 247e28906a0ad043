"""The one training loop: it owns stepping, accumulation, clipping, the schedule, EMA, the log, evaluation and checkpoints.

What flows through: an objective (objective.py) -> the losses of this process's slots -> summed gradients -> divided by the
weight of the whole global batch -> AdamW -> log.jsonl, checkpoints/, and at the end the exported part in model/.
Data and noise of a slot depend only on (seed, step, slot) and on the reader's saved state; so a run that was killed, and a
run on another number of processes, see the same batches as an uninterrupted one on one process.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from pathlib import Path
from typing import Any

import torch

from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file
from llada_uni.training.loop.checkpoints import Checkpoints
from llada_uni.training.loop.ema import Averages
from llada_uni.training.loop.logs import RunLog, Sums, add_numbers, means, merged, plain
from llada_uni.training.loop.optimizer import gradients, make_optimizer, optimizer_state, scale_gradients, total_norm
from llada_uni.training.loop.options import LoopOptions
from llada_uni.training.loop.parallel import (
    ParallelOptions,
    forget_whole_weights,
    full_state,
    is_sharded,
    parallelize,
    sum_gradients,
)
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.schedule import rate_factor
from llada_uni.training.loop.stage import Objective
from llada_uni.training.loop.stopping import StopSignals

AFTER_STEP, EVALUATION = -1, -2  # what is seeded beside the slots


def run(
    objective: Objective,
    options: LoopOptions,
    out: str | Path,
    seed: int = 0,
    parallel: ParallelOptions | None = None,
    processes: Processes | None = None,
    recipe: dict[str, Any] | None = None,
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Trains `objective` until `options.steps`, from the last complete checkpoint in `out` on where there is one.

    recipe: kept in every checkpoint. stop_after: leave with a checkpoint after so many steps of this call (the schedule still
    counts options.steps). SIGTERM and SIGINT do the same after the step they come in. At the end the trained part is exported
    to out/model. Returns {"step", "finished", "stopped" (why, or None), "numbers" (the last row of the log), "seconds"}.
    UserError: a loss that is not finite, a checkpoint of another configuration or one that cannot be written.
    """
    trainer = Trainer(objective, options, Path(out), seed, parallel or ParallelOptions(), processes or objective.processes)
    start = step = trainer.resume()
    stopped, last = None, options.steps
    if stop_after is not None and start + stop_after < last:
        stopped, last = "stop_after", start + stop_after
    with StopSignals() as signals, RunLog(trainer.out, start, options.steps, options.tensorboard, trainer.main) as log:
        if start:
            log.say(f"resuming {out} at step {start}")
        for step in range(start + 1, last + 1):  # steps that will be done; the step under way has the index step - 1
            trainer.train_step(step - 1, log)
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
        "numbers": trainer.last_row,
        "seconds": trainer.seconds(),
    }


def seeded(seed: int, step: int, slot: int) -> random.Random:
    """Seeds torch's global generator from (seed, step, slot), and gives a Python generator seeded likewise."""
    mixed = int.from_bytes(hashlib.sha256(f"{seed} {step} {slot}".encode()).digest()[:8], "big") >> 1
    torch.manual_seed(mixed)
    return random.Random(mixed)


class Trainer:
    """An objective with its optimizer, averages and checkpoints; one method for each thing that the loop does."""

    def __init__(
        self, objective: Objective, options: LoopOptions, out: Path, seed: int, parallel: ParallelOptions, processes: Processes
    ) -> None:
        self.objective, self.options, self.out, self.seed, self.processes = objective, options, out, seed, processes
        self.main = processes.is_main
        self.slots = processes.slots(options.micro_batches)
        if options.threads:
            torch.set_num_threads(options.threads)
        parallelize(objective, parallel, processes, options.precision)
        objective.train()
        self.weights = {name: weight for name, weight in objective.named_parameters() if weight.requires_grad}
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
        return {"model": self.objective.state_dict(), "optimizer": moments, "ema": self.averages.values}

    def _fingerprint(self) -> dict[str, Any]:
        own = {"seed": self.seed, "micro_batches": self.options.micro_batches, "ema": self.options.ema > 0}
        return {**self.objective.fingerprint(), **own}

    def resume(self) -> int:
        """Puts everything back to the last complete checkpoint; returns how many steps are done."""
        meta = self.checkpoints.load_last(self._state(), self._fingerprint())
        if meta is None:
            return 0
        for slot in self.slots:
            self.objective.load_slot_state(slot, meta["slots"][str(slot)])
        self.sums = meta["sums"] if self.main else {}
        self.began -= meta["seconds"]
        self.reported_step = meta["reported"]
        self.reported -= meta["since_report"]
        return meta["step"]

    def train_step(self, step: int, log: RunLog) -> None:
        """One optimizer step over the global batch; leaves the weights as they are when it is not finite and may be skipped."""
        options = self.options
        rate = options.lr * rate_factor(
            options.schedule, step, options.steps, options.warmup, options.decay_fraction, options.min_lr_fraction
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        totals, sums, batches = self._accumulate(step)
        grads = gradients(self.weights)
        if not is_sharded(self.objective):  # sharded ones are summed in the backward pass
            sum_gradients(grads, self.processes)
        totals = self.processes.sum(totals)
        total, weight, norm = torch.cat([totals, total_norm(grads).double()[None]]).tolist()  # the step's one synchronisation
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._not_finite(step, total, batches, log)
            return
        self.skips = 0
        norm /= max(weight, 1e-12)
        clipped = min(1.0, options.clip / (norm + 1e-6)) if options.clip else 1.0
        scale_gradients(grads, clipped / max(weight, 1e-12))
        self.optimizer.step()
        self.averages.update(step)
        seeded(self.seed, step, AFTER_STEP)
        after = self.objective.after_step(step)
        add_numbers(self.sums, sums)
        add_numbers(self.sums, {name: (value, 1.0) for name, value in {**after, "norm": norm, "lr": rate}.items()})

    def _accumulate(self, step: int) -> tuple[torch.Tensor, Sums, dict[int, dict[str, torch.Tensor]]]:
        """Adds up the gradients of this process's slots -> ([total, weight] float64, numbers, batches by slot)."""
        device = self.processes.torch_device
        low = self.options.precision == "bfloat16" and not is_sharded(self.objective)
        totals, sums, batches = torch.zeros(2, dtype=torch.float64, device=device), {}, {}
        for slot in self.slots:
            rng = seeded(self.seed, step, slot)
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                loss = self.objective.loss(step, slot, rng)
            loss.total.backward()
            totals += torch.stack([loss.total.detach().double(), totals.new_tensor(loss.weight)])
            add_numbers(sums, {**loss.numbers, "loss": (loss.total, loss.weight)})
            batches[slot] = self.objective.last_batch()
        return totals, sums, batches

    def _not_finite(self, step: int, total: float, batches: dict[int, dict[str, torch.Tensor]], log: RunLog) -> None:
        """Saves this process's batches of the step; then UserError, or a line in the log where such steps are skipped."""
        name = f"step-{step:08}.pt" if self.main else f"step-{step:08}-process-{self.processes.rank}.pt"
        path = self.out / "bad-batches" / name
        with atomic_file(path) as temporary:
            torch.save({f"slot {slot}": batch for slot, batch in batches.items()}, temporary)
        what = f"the {'gradient' if math.isfinite(total) else 'loss'} of step {step} is not finite; its batch is in {path}"
        self.skips += 1
        if self.options.on_nan == "stop":
            raise UserError(f"{what}; the last checkpoint is intact (loop.on_nan=skip leaves such steps out)")
        if self.skips > self.options.max_skips:
            raise UserError(f"{what}; {self.skips} steps in a row were not finite (loop.max_skips is {self.options.max_skips})")
        log.say(f"{what}; skipped")

    def report(self, step: int, log: RunLog) -> None:
        """A row of the log over the steps since the last one."""
        now = time.monotonic()
        elapsed, steps = now - self.reported, step - self.reported_step
        numbers = means(merged(self.processes.gather(plain(self.sums))), elapsed)
        pace = {"steps_per_second": steps / max(elapsed, 1e-9), "seconds": self.seconds()}
        self.last_row = log.row(step, {**numbers, **pace})
        self.sums, self.reported, self.reported_step = {}, now, step

    def evaluate(self, step: int, log: RunLog) -> None:
        """The objective's own numbers on held-out data, with the averaged weights where there are averages."""
        began = time.monotonic()
        self.objective.eval()
        seeded(self.seed, step, EVALUATION)
        with torch.no_grad(), self.averages.applied():
            numbers = self.objective.evaluate(step)
        forget_whole_weights(self.objective)
        self.objective.train()
        log.row(step, {f"eval/{name}": value for name, value in numbers.items()})
        self.reported += time.monotonic() - began  # the pace of training does not count it

    def save_due(self, step: int) -> bool:
        """Whether this process finds that a checkpoint is due; the clock of the main one counts."""
        by_steps = self.options.save_every > 0 and step % self.options.save_every == 0
        by_time = 0 < self.options.save_seconds <= time.monotonic() - self.saved
        return by_steps or (by_time and self.main)

    def save(self, step: int, recipe: dict[str, Any] | None) -> None:
        """A checkpoint after `step` steps."""
        mine = {str(slot): self.objective.slot_state(slot) for slot in self.slots}
        gathered = self.processes.gather((mine, plain(self.sums)))
        meta = {
            "seconds": self.seconds(),
            "reported": self.reported_step,
            "since_report": time.monotonic() - self.reported,
            "processes": self.processes.size,
            "fingerprint": self._fingerprint(),
            "slots": {slot: state for states, _ in gathered for slot, state in states.items()},
            "sums": merged(sums for _, sums in gathered),
            "recipe": recipe,
        }
        self.checkpoints.save(step, self._state(), meta)
        self.saved = time.monotonic()

    def export(self) -> None:
        """Gives the whole weights (averaged where there are averages) to `objective.save`, on the main process."""
        with self.averages.applied():
            state = full_state(self.objective, self.processes)
        if self.main:
            try:
                self.objective.save(self.out / "model", state)
            except OSError as error:
                raise UserError(f"{self.out / 'model'} could not be written: {error}; the last checkpoint is intact") from error
        self.processes.barrier()
