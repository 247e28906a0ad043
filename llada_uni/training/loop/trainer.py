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
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file, read_json
from llada_uni.training.loop.best import Best
from llada_uni.training.loop.changes import consequence, touches_readers
from llada_uni.training.loop.checkpoints import META, Checkpoints, check_fingerprint, complete_checkpoints
from llada_uni.training.loop.ema import Averages
from llada_uni.training.loop.layers import check_compilable, plain_attention
from llada_uni.training.loop.logs import RunLog, Sums, add_metrics, means, merged, plain
from llada_uni.training.loop.optimizer import gradients, make_optimizer, optimizer_state, scale_gradients, total_norm
from llada_uni.training.loop.options import LoopOptions, rate_factor
from llada_uni.training.loop.pace import counted, memory_gb, product_speed
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

_FINGERPRINTS = {"seed", "loop.micro_batches"}  # keys of the recipe that a fingerprint holds, and may yet change
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
    changed: Collection[str] = (),
) -> dict[str, Any]:
    """Trains `stage` until `options.steps`, from the last complete checkpoint in `out` on where there is one.

    recipe: kept in every checkpoint. stop_after: leave with a checkpoint after so many steps of this call (the schedule still
    counts options.steps). changed: keys of the recipe that are not as they were when the checkpoint was written (and may
    differ: changes.py). SIGTERM and SIGINT do the same after the step they come in. At the end the trained part is exported
    to out/model. Returns {"step", "finished", "stopped" (why, or None), "metrics" (the last row of the log), "seconds"}.
    UserError: a loss that is not finite, a checkpoint of another configuration or one that cannot be written.
    """
    trainer = Trainer(stage, options, Path(out), seed, parallel or ParallelOptions(), processes or stage.processes)
    start = step = trainer.resume(changed)
    stopped, last = None, options.steps
    if trainer.best.over:  # a run that had ended early is asked for again
        last = start
    elif stop_after is not None and start + stop_after < last:
        stopped, last = "stop_after", start + stop_after
    with (
        StopSignals() as signals,
        RunLog(trainer.out, start, options.steps, options.tensorboard, trainer.main, options.wandb) as log,
        trainer.prefetch(start, last) as batches,
    ):
        if start:
            log.say(f"resuming {out} at step {start}")
            for key in changed:
                log.say(f"{key} is another one now: {consequence(key)}")
        for step in range(start + 1, last + 1):  # steps that will be done; the step under way has the index step - 1
            try:
                trainer.train_step(step - 1, batches, log)
            except DataFailed as failure:
                trainer.leave(step - 1, recipe, log, failure.reason)
            log.advance(step)
            if step % options.log_every == 0 or step == options.steps:
                trainer.report(step, log)
            if options.evaluate_every and (step % options.evaluate_every == 0 or step == options.steps):
                try:
                    trainer.evaluate(step, log)
                except UserError as error:
                    trainer.leave(step, recipe, log, error)
            if options.samples_every and (step % options.samples_every == 0 or step == options.steps):
                trainer.show(step, log)
            if trainer.best.over:
                log.say(f"no better {trainer.best.name} in {options.patience} evaluations: the run ends at step {step}")
            stop, due = trainer.processes.any([signals.received is not None, trainer.save_due(step)])
            if stop or due or step == last or trainer.best.over or trainer.is_best(step):
                trainer.save(step, recipe)
            if trainer.best.over:
                break
            if stop and step < last:
                stopped = signals.received or "signal to another process"
                log.say(f"{stopped}: saved at step {step}; the same command goes on from there")
                break
    finished = step >= options.steps or trainer.best.over
    if finished:
        trainer.export()
    return {
        "step": step,
        "finished": finished,
        "stopped": None if finished else stopped,
        "metrics": trainer.last_row,
        "seconds": trainer.seconds(),
    }


class DataFailed(Exception):
    """A batch could not be drawn, for the reason given; the weights are as they were before the step."""

    def __init__(self, reason: UserError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def fingerprint_of(stage: Stage, options: LoopOptions, seed: int) -> dict[str, Any]:
    """What a checkpoint and the run that resumes it must agree on."""
    return {**stage.fingerprint(), "seed": seed, "micro_batches": options.micro_batches, "ema": options.ema > 0}


def check_resumable(stage: Stage, options: LoopOptions, out: Path, seed: int, changed: Collection[str]) -> None:
    """UserError when the last complete checkpoint in `out` cannot be gone on from with these changes of the recipe."""
    for folder in complete_checkpoints(out / "checkpoints")[-1:]:
        found = read_json(folder / META).get("fingerprint", {})
        check_fingerprint(folder, found, fingerprint_of(stage, options, seed), _FINGERPRINTS & set(changed))


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
        if options.compile:
            check_compilable(stage, parallel)
        self.compiled = False
        stage.train()
        self.weights = {name: weight for name, weight in stage.named_parameters() if weight.requires_grad}
        self.optimizer = make_optimizer(self.weights, options)
        self.averages = Averages(self.weights, options.ema)
        self.checkpoints = Checkpoints(out / "checkpoints", processes, options.keep)
        self.best = Best(options.watch, options.patience)
        self.operations: float | None = None  # of a micro-batch, once counted
        self.sums: Sums = {}  # since the last row of the log
        self.last_row: dict[str, float] = {}
        self.skips = self.noted = self.saved_step = 0
        self.began = self.saved = self.reported = time.monotonic()
        self.reported_step = 0

    def seconds(self) -> float:
        """Time spent on the run, the calls before a resume included."""
        return time.monotonic() - self.began

    def _state(self) -> dict[str, Any]:
        moments = optimizer_state(self.optimizer, self.weights)
        return {"model": self.stage.state_dict(), "optimizer": moments, "ema": self.averages.values}

    def _fingerprint(self) -> dict[str, Any]:
        return fingerprint_of(self.stage, self.options, self.seed)

    def resume(self, changed: Collection[str] = ()) -> int:
        """Puts everything back to the last complete checkpoint; returns how many steps are done.

        changed: keys of the recipe that are not as they were. Where readers cannot go on exactly, they go on about there.
        """
        meta = self.checkpoints.load_last(self._state(), self._fingerprint(), _FINGERPRINTS & set(changed))
        if meta is not None and "best" in meta:
            self.best.load_state(meta["best"])
            self.checkpoints.best = self.best.step if self.options.keep_best else None
        if meta is not None and (meta["step"] >= self.options.steps or self.best.over):  # nothing is left to do
            return meta["step"]
        self.stage.begin(self.options.micro_batches)
        if meta is not None:
            readers = {int(number): state for number, state in meta["readers"].items()}
            if touches_readers(changed):
                readers = self.stage.share_again(readers, self.options.micro_batches)
            for micro_batch in self.mine:
                self.stage.load_reader_state(micro_batch, readers[micro_batch])
                kept = None if touches_readers(changed) else meta.get("kept", {}).get(str(micro_batch))
                self.stage.load_kept_state(micro_batch, kept)
        self.reader_states = {micro_batch: self.stage.reader_state(micro_batch) for micro_batch in self.mine}
        if meta is None:
            return 0
        self.operations = None if changed else meta.get("operations")  # batches may be of another size now
        self.saved_step = meta["step"]
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
            try:
                drawn = batches.take()
            except UserError as error:
                raise DataFailed(error) from error
            drawn.seed_global()
            self._compile()
            known = self.stage.operations(drawn.batch) or self.operations
            with counted(known is None) as operations, plain_attention(low and device.type == "cpu"):
                with torch.autocast(device.type, torch.bfloat16, enabled=low):
                    loss = self.stage.loss(drawn.batch)
                loss.total.backward()
            self.operations = known or float(operations.total)
            add_metrics(sums, {"operations": (self.operations, 0.0)})
            totals += torch.stack([loss.total.detach().double(), totals.new_tensor(loss.weight)])
            add_metrics(sums, {**loss.metrics, "loss": (loss.total, loss.weight)})
            used.append(drawn)
        self.reader_states |= {drawn.micro_batch: drawn.reader_state for drawn in used}
        add_metrics(sums, {"data_wait": (batches.waited - before, 1.0)})
        return totals, sums, used

    def _compile(self) -> None:
        """Once the operations of a micro-batch are known: they cannot be counted in compiled layers."""
        if self.options.compile and not self.compiled and self.operations is not None:
            for unit in self.stage.compile_units():
                unit.compile()
            self.compiled = True

    def leave(self, step: int, recipe: dict[str, Any] | None, log: RunLog, reason: UserError) -> NoReturn:
        """Ends a run whose data failed, with a checkpoint after the last whole step. UserError with the reason.

        With several processes the others cannot be asked to save (they wait for this one's gradients): their last checkpoint
        stays.
        """
        self.note_left_out(log)
        if self.processes.size == 1 and step > self.saved_step:
            self.save(step, recipe)
            log.say(f"saved at step {step}; the same command goes on from there")
        raise reason

    def note_left_out(self, log: RunLog) -> None:
        """Writes what the stage has left out into bad-data.txt, and says so, when there is more of it than before."""
        lines = self.stage.left_out()
        if len(lines) <= self.noted:
            return
        self.noted = len(lines)
        path = self.out / ("bad-data.txt" if self.main else f"bad-data-process-{self.processes.rank}.txt")
        before = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        with atomic_file(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in dict.fromkeys([*before, *lines])), encoding="utf-8")
        log.say(f"{len(lines)} records or images cannot be used and are left out: {path}")

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
        self.note_left_out(log)
        metrics = means(merged(self.processes.gather(plain(self.sums))), elapsed)
        pace = {"steps_per_second": steps / max(elapsed, 1e-9), **self._machine(metrics), "seconds": self.seconds()}
        self.last_row = log.row(step, {**metrics, **pace})
        self.sums, self.reported, self.reported_step = {}, now, step

    def _machine(self, metrics: dict[str, float]) -> dict[str, float]:
        """What the machine gives: `mfu` in place of the operations per second, and the most memory of any process."""
        device = self.processes.torch_device
        reached = metrics.pop("operations_per_second", 0.0)
        dtype = torch.bfloat16 if self.options.precision == "bfloat16" else torch.float32
        share = reached / (product_speed(str(device), dtype) * self.processes.size)
        return {"mfu": share, "memory_gb": max(self.processes.gather(memory_gb(device)))}

    def is_best(self, step: int) -> bool:
        """Whether the evaluation after `step` was the best so far, and its checkpoint is to be kept."""
        return self.options.keep_best and self.best.step == step

    def show(self, step: int, log: RunLog) -> None:
        """The stage's sheets of images, made with the averaged weights where there are averages."""
        began = time.monotonic()
        with self._looked_at(step):
            sheets = self.stage.pictures(step)
        log.show(step, sheets)
        self.reported += time.monotonic() - began

    @contextmanager
    def _looked_at(self, step: int) -> Iterator[None]:
        """Evaluation mode, averaged weights, no gradients, and noise that is the same whenever this step is looked at."""
        self.stage.eval()
        torch.manual_seed(seed_of(self.seed, step, EVALUATION))
        plain = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()  # other shapes, once in a while
        with torch.no_grad(), self.averages.applied(), plain:
            yield
        forget_whole_weights(self.stage)
        self.stage.train()

    def evaluate(self, step: int, log: RunLog) -> None:
        """The stage's own metrics on held-out data, with the averaged weights where there are averages."""
        began = time.monotonic()
        with self._looked_at(step):
            metrics = self.stage.evaluate(step)
        if (self.options.keep_best or self.options.patience) and self.best.saw(step, metrics) and self.options.keep_best:
            self.checkpoints.best = step
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
            "operations": self.operations,
            "best": self.best.state(),
            "recipe": recipe,
        }
        self.checkpoints.save(step, self._state(), meta)
        self.saved, self.saved_step = time.monotonic(), step

    def export(self) -> None:
        """Gives the whole weights (averaged where there are averages) to `stage.save`, on the main process: those of the best
        checkpoint where it is kept, else the last ones."""
        if self.options.keep_best and self.best.step is not None:
            self.checkpoints.load_step(self.best.step, self._state())
        with self.averages.applied():
            state = full_state(self.stage, self.processes)
        if self.main:
            try:
                self.stage.save(self.out / "model", state)
            except OSError as error:
                raise UserError(f"{self.out / 'model'} could not be written: {error}; the last checkpoint is intact") from error
        self.processes.barrier()
