"""Rows that wait for room: packed sequences of a fixed number, filled from a small stock of rows, none of which is lost.

Records drawn evenly by folder (mixture.py) -> their noised rows (data/masking.py) -> the stock of a
micro-batch -> for each sequence the oldest row, and of the others those that fill it best.
A record of several rows is spread over sequences and steps. Nothing is put back or drawn again, so shares are those that were
asked for; the oldest row always goes first, so every row is used. The state names the records in the stock by their places and
the seeds of their noise: a few numbers each, from which the same rows are made again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llada_uni.data.masking import Row
from llada_uni.data.packing import fullest
from llada_uni.data.shards import Record
from llada_uni.training.language.mixture import Mixture

STOCK = 32
"""Rows to choose from. More fill sequences better and make a checkpoint's state longer."""


class _Waiting(NamedTuple):
    """Row `number` of the record that `folder`'s reader gave as `turn` of `task`, noised from `seed`."""

    folder: str
    task: str
    turn: int
    seed: int
    number: int
    row: Row

    def source(self) -> list[Any]:
        return [self.folder, self.task, self.turn, self.seed]


class WaitingRows:
    """The stocks of all micro-batches. to_rows(record, rng): the rows of a record, which depend on these two alone."""

    def __init__(self, data: Mixture, to_rows: Callable[[Record, random.Random], list[Row]]) -> None:
        self.data, self.to_rows = data, to_rows
        self._stocks: dict[int, list[_Waiting]] = {}

    def fill(self, micro_batch: int, sequences: int, length: int, rng: random.Random) -> list[list[Row]]:
        """The rows of each of `sequences` sequences of at most `length` positions."""
        stock = self._stocks.setdefault(micro_batch, [])
        filled = []
        for _ in range(sequences):
            while len(stock) < STOCK:
                folder, (task, turn, record) = self.data.take_even(micro_batch)
                stock += self._waiting(folder, task, turn, rng.getrandbits(63), record)
            sizes = [len(waiting.row) for waiting in stock]
            beside = fullest(sizes[1:], length - sizes[0])
            chosen = {0, *(number + 1 for number in beside)}
            filled.append([waiting.row for number, waiting in enumerate(stock) if number in chosen])
            stock[:] = [waiting for number, waiting in enumerate(stock) if number not in chosen]
        return filled

    def _waiting(self, folder: str, task: str, turn: int, seed: int, record: Record) -> list[_Waiting]:
        rows = self.to_rows(record, random.Random(seed))
        return [_Waiting(folder, task, turn, seed, number, row) for number, row in enumerate(rows)]

    def state(self, micro_batch: int) -> list[dict[str, Any]]:
        """The stock of a micro-batch as plain JSON: for each record its source and which of its rows wait."""
        found: list[dict[str, Any]] = []
        for waiting in self._stocks.get(micro_batch, []):
            if not found or found[-1]["source"] != waiting.source():
                found.append({"source": waiting.source(), "rows": []})
            found[-1]["rows"].append(waiting.number)
        return found

    def load_state(self, micro_batch: int, state: list[Mapping[str, Any]]) -> None:
        """Makes the stock again that `state` was taken of."""
        stock: list[_Waiting] = []
        for entry in state:
            folder, task, turn, seed = entry["source"]
            record = self.data.again(folder, micro_batch, task, turn)
            rows = self._waiting(folder, task, turn, seed, record)
            stock += [rows[number] for number in entry["rows"]]
        self._stocks[micro_batch] = stock
