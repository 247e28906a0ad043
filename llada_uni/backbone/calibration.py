"""Which of several equal ways to compute a product is fastest on this machine: measured once per shape, kept in memory.

key (what is computed, shape, dtype, threads) and the ways -> the name of one, the same for the whole life of the process.
It depends on the shape of the weights alone and never on how many rows there are, so that a request computes alike alone
and in a batch. LLADA_UNI_EXPERTS names one for all shapes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from llada_uni.errors import UserError

VARIABLE = "LLADA_UNI_EXPERTS"
REPEATS = 3  # calls of each way after the first; the fastest counts
HOPELESS = 4.0  # a way whose first call takes so many times the best so far is not called again
MARGIN = 1.5  # the preferred way is kept unless another is so many times as fast: so noise changes nothing


class Key(NamedTuple):
    """A shape of weights. what: "experts" or "linear"; top_k: experts a token, where they are experts."""

    what: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    threads: int
    top_k: int = 0


@dataclass(frozen=True)
class Choice:
    """One shape's result. seconds: of each way that was measured, empty where the choice was given."""

    form: str
    seconds: Mapping[str, float]


_choices: dict[Key, Choice] = {}
_forgotten = 0
_lock = threading.RLock()
_given: list[str] = []  # by `using`, the last counts


def choose(key: Key, ways: Callable[[], Mapping[str, Callable[[], object]]]) -> str:
    """The fastest of the ways, the first of which is preferred. `ways` is only asked when the key is new."""
    known = _choices.get(key)
    if known is not None:
        return known.form
    with _lock:
        if key not in _choices:
            _choices[key] = measure(ways())
        return _choices[key].form


def measure(ways: Mapping[str, Callable[[], object]]) -> Choice:
    """Time all ways, the first of which is preferred."""
    seconds = dict.fromkeys(ways, float("inf"))
    waiting = dict(ways)
    for turn in range(REPEATS + 1):
        for name, call in list(waiting.items()):  # in turns, so that a slow moment of the machine hits all
            begin = time.perf_counter()
            call()
            took = time.perf_counter() - begin
            if turn == 0 and took > HOPELESS * min(seconds.values()):
                del waiting[name]
            seconds[name] = min(seconds[name], took)
    preferred, fastest = next(iter(seconds)), min(seconds, key=lambda name: seconds[name])
    return Choice(preferred if seconds[preferred] <= MARGIN * seconds[fastest] else fastest, seconds)


def choices() -> dict[Key, Choice]:
    """All that has been measured in this process."""
    return dict(_choices)


def forget() -> None:
    """Measure again from now on."""
    global _forgotten
    _forgotten += 1
    _choices.clear()


def times_forgotten() -> int:
    """Choices made before may differ from later ones when this has grown."""
    return _forgotten


def given(allowed: Sequence[str]) -> str | None:
    """The form that `using` or the environment names; None: measure. UserError for one that is unknown."""
    name = _given[-1] if _given else os.environ.get(VARIABLE) or None
    if name is not None and name not in allowed:
        raise UserError(f"{VARIABLE} is {name!r}; allowed: {', '.join(allowed)}")
    return name


@contextmanager
def using(form: str) -> Iterator[None]:
    """Inside, every product is computed in this form, in all threads."""
    _given.append(form)
    try:
        yield
    finally:
        _given.pop()
