"""Batches ahead of time: a thread draws the next micro-batches while the step under way computes.

(step, micro-batch) in the order of training -> generators seeded by them -> `stage.batch` in one thread,
at most `ahead` micro-batches early -> pinned memory where there is a GPU -> the device -> the loop.
What was drawn early and never used costs nothing: each batch carries the reader's state behind it, and a checkpoint keeps that
of the last batch that was trained on. So a resumed run, and a run without prefetching, see the same batches.
A thread, not a process: drawing needs the stage (its readers, its tokenizer), which then need not be copied or forked beside
CUDA and its threads; arrays, images and tensor operations let go of Python's lock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llada_uni.training.loop.stage import Generators, Stage


def seed_of(seed: int, step: int, micro_batch: int) -> int:
    """One number of 63 bits from a run's seed, a step and a micro-batch."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {micro_batch}".encode()).digest()[:8], "big") >> 1


def seeded(seed: int, step: int, micro_batch: int) -> Generators:
    """The generators of one micro-batch; torch's global generator is left alone."""
    mixed = seed_of(seed, step, micro_batch)
    return Generators(random.Random(mixed), torch.Generator().manual_seed(mixed))


class Drawn(NamedTuple):
    """What `stage.batch` gave. reader_state: of its micro-batch, behind the batch; seed, noise: see `seed_global`."""

    micro_batch: int
    batch: Any
    reader_state: dict[str, Any]
    seed: int
    noise: Tensor

    def seed_global(self) -> None:
        """Lets torch's global generator (that of the CPU) go on where the batch's own stopped: the noise of `loss`."""
        torch.manual_seed(self.seed)
        torch.set_rng_state(self.noise)


def draw(stage: Stage, seed: int, step: int, micro_batch: int, pin: bool = False) -> Drawn:
    """Draws one micro-batch, in memory that a GPU can copy from while it computes (`pin`) or in ordinary memory."""
    generators = seeded(seed, step, micro_batch)
    batch = stage.batch(step, micro_batch, generators)
    state = stage.reader_state(micro_batch)
    if pin:
        batch = map_tensors(Tensor.pin_memory, batch)
    return Drawn(micro_batch, batch, state, seed_of(seed, step, micro_batch), generators.torch.get_state())


class Prefetcher:
    """The micro-batches of `order` ((step, micro-batch) pairs), one after another, on `device`.

    ahead: how many are drawn early, in a thread; 0: each when it is asked for, without a thread. `waited`: seconds that `take`
    has waited for data in all. Used as a context: the thread ends with it. What `stage.batch` raises, `take` raises.
    """

    def __init__(self, stage: Stage, seed: int, order: Iterable[tuple[int, int]], ahead: int, device: torch.device) -> None:
        self.device, self.ahead, self.waited = device, ahead, 0.0
        self._order: Iterator[tuple[int, int]] = iter(order)
        self._draw = partial(draw, stage, seed, pin=device.type == "cuda" and ahead > 0)
        self._waiting: deque[Future[Drawn]] = deque()
        self._thread = ThreadPoolExecutor(1, "batches", self._use_device) if ahead else None

    def _use_device(self) -> None:
        if self.device.type == "cuda":  # pinned memory belongs to the thread's device
            torch.cuda.set_device(self.device)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def take(self) -> Drawn:
        """The next micro-batch; StopIteration behind the last."""
        began = time.monotonic()
        drawn = self._next()
        self.waited += time.monotonic() - began
        return drawn._replace(batch=to_device(drawn.batch, self.device))

    def _next(self) -> Drawn:
        if self._thread is None:
            return self._draw(*next(self._order))
        while len(self._waiting) <= self.ahead and (following := next(self._order, None)) is not None:
            self._waiting.append(self._thread.submit(self._draw, *following))
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft().result()


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with every tensor in it replaced: in dataclasses, named and plain tuples, lists and mappings, at any depth."""
    again = partial(map_tensors, function)
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{f.name: again(getattr(value, f.name)) for f in dataclasses.fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(again, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(again, value))
    if isinstance(value, Mapping):
        return {name: again(inner) for name, inner in value.items()}
    return value


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on `device`; from pinned memory the copies run beside the computation."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()), batch)


def named_tensors(batch: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor in a batch by its field's name ("images", "packed.ids"), on the CPU."""
    if isinstance(batch, Tensor):
        return {name or "batch": batch.detach().cpu()}
    if dataclasses.is_dataclass(batch):
        inner = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    elif isinstance(batch, tuple) and hasattr(batch, "_fields"):
        inner = dict(zip(batch._fields, batch, strict=True))
    elif isinstance(batch, (tuple, list)):
        inner = {str(number): value for number, value in enumerate(batch)}
    else:
        inner = dict(batch) if isinstance(batch, Mapping) else {}
    prefix = f"{name}." if name else ""
    return {key: tensor for field, value in inner.items() for key, tensor in named_tensors(value, f"{prefix}{field}").items()}
