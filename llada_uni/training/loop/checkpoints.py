"""Checkpoints of a run: written by all processes at once, each its own part; the last complete one is found again.

checkpoints/step-00000100/ holds the parts (torch.distributed.checkpoint: `.metadata` and one file a process) and meta.json,
which is written last: a folder with a meta.json that fits its files is complete. Everything is written under a hidden name and
takes its own only when complete, so a kill at any moment or a full disk leaves the former checkpoints as they were.
The tensors are kept under "model", "optimizer" and "ema"; loading shards them again, so the number of processes may change.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from llada_uni.errors import UserError
from llada_uni.files.weights import read_json, write_json
from llada_uni.training.loop.ranks import Processes

_NAME = re.compile(r"step-(\d{8,})")
META = "meta.json"


def step_folder(step: int) -> str:
    """The folder name of a checkpoint after `step` steps."""
    return f"step-{step:08}"


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder; None when it is complete."""
    if not (folder / META).is_file():
        return f"it has no {META}: its writing was cut off"
    try:
        files = read_json(folder / META)["files"]
    except (UserError, KeyError):
        return f"its {META} is damaged"
    for name, size in files.items():
        if not (folder / name).is_file():
            return f"the file {name} is missing"
        if (folder / name).stat().st_size != size:
            return f"the file {name} has {(folder / name).stat().st_size} bytes instead of {size}"
    return None


def complete_checkpoints(root: Path) -> list[Path]:
    """The complete checkpoints in `root`, oldest first; warns of every other one."""
    found = sorted((int(match[1]), path) for path in root.glob("step-*") if (match := _NAME.fullmatch(path.name)))
    complete = []
    for _, path in found:
        problem = damage(path)
        if problem is None:
            complete.append(path)
        else:
            warnings.warn(f"ignoring the checkpoint {path}: {problem}", stacklevel=2)
    return complete


class Checkpoints:
    """The checkpoints of one run directory; `root` is its folder `checkpoints`, `keep` how many stay."""

    def __init__(self, root: Path, processes: Processes, keep: int = 2) -> None:
        self.root, self.processes, self.keep = root, processes, keep
        self.best: int | None = None  # the step of a checkpoint that stays, however old

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first, as the main process sees them."""
        found = complete_checkpoints(self.root) if self.processes.is_main else []
        return self.processes.gather(found)[0]

    def load_last(
        self, state: Mapping[str, Any], fingerprint: Mapping[str, Any], changed: Collection[str] = ()
    ) -> dict[str, Any] | None:
        """Reads the last complete checkpoint into the tensors of `state`, in place; returns its meta.json, None without one.

        A checkpoint that turns out to be unreadable is passed over with a warning. UserError when it was made by a run with
        another fingerprint, before anything is read; changed: what may differ in it.
        """
        found = self.complete()
        for folder in reversed(found):
            meta = read_json(folder / META)
            check_fingerprint(folder, meta.get("fingerprint", {}), fingerprint, changed)
            try:
                _quietly(dcp.load, state, folder, self.processes.size == 1)
            except (dcp.api.CheckpointException, OSError, RuntimeError, ValueError, EOFError) as error:
                warnings.warn(f"ignoring the checkpoint {folder}: it cannot be read ({_reason(error)})", stacklevel=2)
                continue
            return meta
        if found:  # `state` is half overwritten by now
            raise UserError(f"no checkpoint in {self.root} can be read; move that folder away to start again")
        return None

    def load_step(self, step: int, state: Mapping[str, Any]) -> bool:
        """Reads the checkpoint of `step` into the tensors of `state`, in place; False when it is not there any more."""
        for folder in self.complete():
            if folder.name == step_folder(step):
                _quietly(dcp.load, state, folder, self.processes.size == 1)
                return True
        return False

    def save(self, step: int, state: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
        """Writes a checkpoint of `step` and removes those that are no longer kept; all processes call it together.

        UserError when it cannot be written (full disk, no permission); the former checkpoints are then intact.
        """
        target, hidden = self.root / step_folder(step), self.root / f".{step_folder(step)}.writing"
        failure = (
            self._attempt(lambda: _make_empty(hidden), main_only=True)
            or self._attempt(lambda: _quietly(dcp.save, state, hidden, self.processes.size == 1))
            or self._attempt(lambda: self._install(hidden, target, {"step": step, **meta}), main_only=True)
        )
        if failure:
            if self.processes.is_main:
                shutil.rmtree(hidden, ignore_errors=True)
            last = self.complete()
            intact = f"{last[-1]} is intact" if last else "there is no earlier one"
            raise UserError(f"the checkpoint of step {step} could not be written to {self.root}: {failure}; {intact}")
        return target

    def _attempt(self, action: Callable[[], None], main_only: bool = False) -> str | None:
        """Runs a part of saving and waits for the others; the first failure of any process, known to all of them."""
        failure = None
        try:
            if self.processes.is_main or not main_only:
                action()
        except (dcp.api.CheckpointException, OSError, RuntimeError) as error:
            failure = _reason(error)
        return next((text for text in self.processes.gather(failure) if text), None)

    def _install(self, hidden: Path, target: Path, meta: dict[str, Any]) -> None:
        files = {path.name: path.stat().st_size for path in sorted(hidden.iterdir())}
        write_json(hidden / META, {**meta, "files": files})
        if target.exists():  # only a damaged one can be there: a complete one would have been resumed from
            os.replace(target, self.root / f".{target.name}.damaged")
        os.replace(hidden, target)
        for old in complete_checkpoints(self.root)[: -self.keep]:
            if self.best is not None and old.name == step_folder(self.best):
                continue
            os.replace(old, self.root / f".{old.name}.old")  # a kill must not leave half of it under its name
        for hidden in self.root.glob(".step-*"):  # these, and what killed runs left behind
            shutil.rmtree(hidden, ignore_errors=True)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left there was never complete
    folder.mkdir(parents=True)


def _quietly(action: Callable[..., Any], state: Mapping[str, Any], folder: Path, alone: bool) -> None:
    """`dcp.save` or `dcp.load` without its remark that one process alone has no process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        action(dict(state), checkpoint_id=folder, no_dist=alone)


def check_fingerprint(
    folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], changed: Collection[str] = ()
) -> None:
    """UserError naming every key in which a checkpoint's fingerprint differs from the run's, but for those that may
    (`changed`, as the recipe calls them)."""
    free = {key.removeprefix("loop.") for key in changed}
    wanted = json.loads(json.dumps(wanted))  # as it would look in the file: tuples are lists there
    names = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name) and name not in free]
    if names:
        differ = ", ".join(f"{name} ({found.get(name)} there, {wanted.get(name)} here)" for name in names)
        raise UserError(
            f"the checkpoint {folder} belongs to another configuration: {differ}; use another run directory, "
            "or set these keys back"
        )


def _reason(error: BaseException) -> str:
    """The cause of a failed save or load, in one line."""
    if isinstance(error, dcp.api.CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def checkpoint_of(run: Path, step: int | None = None) -> Path:
    """The complete checkpoint that `run` (a run directory, or a checkpoint itself) names: that of `step`, or the last."""
    run = Path(run)
    if (run / META).is_file() and damage(run) is None:
        return run
    found = complete_checkpoints(run / "checkpoints")
    if step is not None:
        found = [path for path in found if path.name == step_folder(step)]
    if not found:
        which = "complete checkpoint" if step is None else f"complete checkpoint of step {step}"
        raise UserError(f"{run} has no {which}; give a run directory or one of its checkpoints")
    return found[-1]


def load_full(run: str | os.PathLike[str], step: int | None = None, ema: bool = True) -> dict[str, Tensor]:
    """The stage's full state from a checkpoint, whole tensors on the CPU, by the names of its `state_dict()`.

    run: a run directory (its last complete checkpoint, or that of `step`) or a checkpoint; ema: averaged values where the run
    kept averages. Needs no process group, and memory for the result alone. UserError when there is no such checkpoint.
    """
    folder = checkpoint_of(Path(run), step)
    listed = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    names = [key.removeprefix("model.") for key in listed if key.startswith("model.")]
    state: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}}
    for name in names:
        part = "ema" if ema and f"ema.{name}" in listed else "model"
        entry: Any = listed[f"{part}.{name}"]  # of a tensor: its size and dtype
        state[part][name] = torch.empty(entry.size, dtype=entry.properties.dtype)
    _quietly(dcp.load, {part: tensors for part, tensors in state.items() if tensors}, folder, True)
    found = {**state["model"], **state["ema"]}
    return {name: found[name] for name in names}
