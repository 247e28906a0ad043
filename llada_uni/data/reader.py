"""Token records for training: mixed by task, shuffled, without end, and resumed exactly.

A folder of token shards -> `TokenReader.draw(micro_batch)` -> one `Record` at a time.
A global batch has a fixed number of micro-batches. The n-th draw of one chooses a task by the weights, then takes that task's
next record that belongs to it: of the shuffled order of an epoch, micro-batch k of M has the positions k, k + M, k + 2 M, ...
So each record comes once an epoch over all of them, no two ever share one, and the state of a micro-batch is how often it has
drawn; which process works on it does not matter.
"""

from __future__ import annotations

import os
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llada_uni.data.kinds import CONTEXT
from llada_uni.data.order import chance, shuffled
from llada_uni.data.shards import Record, TokenShard, read_manifest
from llada_uni.errors import UserError
from llada_uni.text.tokenizer import TextTokenizer

_OPEN_SHARDS = 64
_IN_VAIN = 50
"""Epochs without one record of use, after which a task has none (micro-batches share records out anew in each)."""


class Drawn(NamedTuple):
    """A record, and where a micro-batch took it: number `turn` of those of its task that belong to the micro-batch."""

    task: str
    turn: int
    record: Record


class Part(NamedTuple):
    """Which records are read: all but each `every`-th of a task ("train"), those alone ("held"), or all of them (every: 0)."""

    name: Literal["train", "held"] = "train"
    every: int = 0


class _TaskRecords:
    """The records of one task, over all shards, by number."""

    def __init__(self, task: str, shards: list[dict[str, Any]], part: Part) -> None:
        holding = [shard for shard in shards if shard["tasks"].get(task)]
        self.files = [shard["file"] for shard in holding]
        self.ends = list(accumulate(shard["tasks"][task] for shard in holding))
        self.shortest = min((shard["shortest"][task] for shard in holding), default=0)
        count = self.ends[-1] if self.ends else 0
        self.held = part.name == "held" and part.every > 0
        self.every = min(part.every, count) if count > 1 else 0  # of few records at least one is held out, but not the only one
        held = count // self.every if self.every else 0
        self.size = held if self.held else count - held

    def __len__(self) -> int:
        return self.size

    def place(self, number: int) -> tuple[str, int]:
        """(file, number within it) of a record."""
        if self.held:
            number = (number + 1) * self.every - 1
        elif self.every:
            number += number // (self.every - 1)
        shard = bisect_right(self.ends, number)
        return self.files[shard], number - (self.ends[shard - 1] if shard else 0)


class TokenReader:
    """Draws records from `folder`.

    weights: task -> how often it is drawn; tasks that are not named are not drawn; None: by their numbers of records.
    part: of the records, where some are held out. longest: records of more tokens are left out, counted in `dropped`, with one
    warning a task; so are those in which nothing is learned. on_missing: shards that are not there "stop" the work, or are
    left out with a warning ("skip"). micro_batches: how many draw, those of a step; may be
    set before the first draw.
    image_token_offset, codebook_size, tasks (what is there), text (the tokenizer the records were made with): as extracted.
    UserError for unknown tasks, missing or damaged files, and when a task has nothing that is short enough.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        weights: Mapping[str, float] | None = None,
        longest: int = 8192,
        seed: int = 0,
        on_missing: str = "stop",
        micro_batches: int = 1,
        part: Part = Part(),  # noqa: B008  # never changed
    ) -> None:
        if on_missing not in ("stop", "skip"):
            raise UserError(f"missing shards: {on_missing!r} is no choice; allowed: stop, skip")
        self.folder, self.longest, self.seed, self.micro_batches = Path(folder), longest, seed, micro_batches
        manifest = read_manifest(self.folder)
        self.image_token_offset: int = manifest["image_token_offset"]
        self.codebook_size: int = manifest["codebook_size"]
        self.tasks: list[str] = manifest["tasks"]
        self.text = TextTokenizer.from_file(self.folder / "tokenizer.json")
        self.skip_missing, self.part = on_missing == "skip", part
        present = self._present(manifest["shards"])
        self._records = {task: _TaskRecords(task, present, part) for task in self.tasks}
        self._weights = self._checked(weights)
        self._draws: dict[int, int] = {}
        self._taken: dict[int, dict[str, int]] = {}
        self.dropped = 0
        self._warned: set[str] = set()
        self._shard = lru_cache(_OPEN_SHARDS)(lambda file: TokenShard(self.folder / file))

    def _present(self, shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        missing = [shard["file"] for shard in shards if not (self.folder / shard["file"]).is_file()]
        if missing:
            said = f"{len(missing)} of {len(shards)} token shards are missing in {self.folder}: {', '.join(missing[:5])}"
            if not self.skip_missing:
                raise UserError(f"{said}; copy or extract them again, or choose to skip missing shards")
            warnings.warn(f"{said}; their records are left out", stacklevel=3)
        return [shard for shard in shards if shard["file"] not in missing]

    def _checked(self, weights: Mapping[str, float] | None) -> dict[str, float]:
        sizes = {task: float(len(records)) for task, records in self._records.items() if len(records)}
        if weights is None:
            weights = sizes
        elif self.part.every:  # of a task with a single record none is held out
            weights = {task: weight for task, weight in weights.items() if task in sizes or task not in self.tasks}
        for task, weight in weights.items():
            if task not in sizes:
                raise UserError(f"no records of the task {task!r} in {self.folder}; allowed: {', '.join(sizes)}")
            if not 0 <= weight < float("inf"):
                raise UserError(f"the weight of the task {task!r} is {weight}; allowed: 0 and more")
            if weight and self._records[task].shortest > self.longest:
                raise UserError(
                    f"every record of the task {task!r} has more than {self.longest} tokens; "
                    f"allowed: at least {self._records[task].shortest}"
                )
        chosen = {task: weight for task, weight in weights.items() if weight}
        if not chosen:
            raise UserError(
                f"no task of {self.folder} has a weight above 0; allowed: {', '.join(sizes) or 'none, it is empty'}"
            )
        return chosen

    def draw(self, micro_batch: int) -> Record:
        """The next record of a micro-batch, 0 <= micro_batch < micro_batches."""
        return self.take(micro_batch).record

    def take(self, micro_batch: int) -> Drawn:
        """The next record of a micro-batch and its place, by which `again` reads it again. UserError when there is none."""
        if not 0 <= micro_batch < self.micro_batches:
            raise UserError(f"micro-batch {micro_batch} of a reader for {self.micro_batches}: open it with those of a step")
        draws = self._draws.get(micro_batch, 0)
        self._draws[micro_batch] = draws + 1
        task = self._choose(chance(f"{self.seed}/{micro_batch}/{draws}"))
        for _ in range(_IN_VAIN * len(self._records[task])):
            drawn = self._next(micro_batch, task)
            reason = self._unusable(drawn.record)
            if reason is None:
                return drawn
            self._drop(task, reason)
        raise UserError(f"{self.folder}: no record of the task {task!r} can be used; the last one {reason}")

    def drawn(self, micro_batch: int) -> int:
        """How many records a micro-batch has drawn."""
        return self._draws.get(micro_batch, 0)

    def again(self, micro_batch: int, task: str, turn: int) -> Record:
        """The record that `take` gave at this place, whatever has been drawn since."""
        records = self._records[task]
        epoch, position = divmod(micro_batch + turn * self.micro_batches, len(records))
        file, number = records.place(shuffled(position, len(records), f"{self.seed}/{task}/{epoch}"))
        return self._shard(file).record(task, number)

    def _choose(self, number: float) -> str:
        ends = list(accumulate(self._weights.values()))
        chosen = bisect_right(ends, number * ends[-1])
        return list(self._weights)[min(chosen, len(ends) - 1)]

    def _next(self, micro_batch: int, task: str) -> Drawn:
        taken = self._taken.setdefault(micro_batch, {})
        turn = taken.get(task, 0)
        taken[task] = turn + 1
        return Drawn(task, turn, self.again(micro_batch, task, turn))

    def _unusable(self, record: Record) -> str | None:
        """What is wrong with a record, None when it can be learned."""
        if len(record.ids) > self.longest:
            return f"has {len(record.ids)} tokens, more than {self.longest}"
        return None if (record.kinds != CONTEXT).any() else "has nothing that is learned"

    def _drop(self, task: str, reason: str) -> None:
        self.dropped += 1
        if task not in self._warned:
            self._warned.add(task)
            warnings.warn(f"a record of {task!r} {reason}: left out; further ones are only counted", stacklevel=4)

    def state(self, micro_batch: int) -> dict[str, Any]:
        """Where a micro-batch stands: plain JSON, for `load_state` of a reader that was opened in the same way."""
        sizes = {task: len(records) for task, records in self._records.items()}
        return {
            "draws": self._draws.get(micro_batch, 0),
            "taken": dict(self._taken.get(micro_batch, {})),
            "micro_batches": self.micro_batches,
            "records": sizes,
        }

    def share_again(self, states: Sequence[Mapping[str, Any]], micro_batches: int) -> dict[str, Any]:
        """A state for each of `micro_batches` micro-batches (the same for all) that goes on about where those of other ones
        (`states`, all of them) were: as far into the order of each task, to fewer than one record a micro-batch. Tasks of
        which there are other records now begin again."""
        sizes = {task: len(records) for task, records in self._records.items()}
        taken = {
            task: sum(state["taken"].get(task, 0) for state in states) // micro_batches
            for task, size in sizes.items()
            if all(state["records"].get(task) == size for state in states)
        }
        draws = sum(state["draws"] for state in states) // micro_batches
        return {"draws": draws, "taken": taken, "micro_batches": micro_batches, "records": sizes}

    def load_state(self, micro_batch: int, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken. UserError when the data or the number of micro-batches have changed since.

        With on_missing "skip" other data are a warning only: the order is then another one.
        """
        now = self.state(micro_batch)
        for name, what in (("micro_batches", "micro-batches"), ("records", "records of each task")):
            if state[name] != now[name]:
                said = f"{self.folder}: the checkpoint was made with {state[name]} {what}, now there are {now[name]}"
                if name == "micro_batches" or not self.skip_missing:
                    raise UserError(said)
                warnings.warn(f"{said}; the order of records changes", stacklevel=2)
        self._draws[micro_batch], self._taken[micro_batch] = state["draws"], dict(state["taken"])
