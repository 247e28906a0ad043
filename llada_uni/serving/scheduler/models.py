"""Further models of one server, and models with an adapter: each a service of its own, read when it is first asked for.

A name -> its service, ready. Where the models in memory would take more than `most_bytes`, those that have nothing to do
are closed, the one that was used longest ago first. The first model of a server is none of these: it is always there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llada_uni.model import UniModel
from llada_uni.serving.errors import Draining, QueueFull
from llada_uni.serving.metrics import Metrics
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.scheduler.service import Service

log = logging.getLogger(__name__)

JUST_USED = 2.0  # seconds in which a service that was handed out may get its request
BUSY_SECONDS = 5  # after which to ask again when all models in memory are at work
_PAUSE = 0.02  # seconds between two looks whether a model is there


@dataclass(frozen=True)
class Offer:
    """A model that can be asked for. open: makes it (nothing large is read yet); bytes: about what it takes in memory."""

    open: Callable[[], UniModel]
    bytes: int


@dataclass
class _Loaded:
    service: Service
    bytes: int
    used: float = field(default_factory=time.monotonic)


def size_of(folder: Path) -> int:
    """Bytes of the weights below a directory."""
    kinds = (".safetensors", ".bin", ".pt")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in kinds and path.is_file())


class Models:
    """offers: name -> model. most_bytes: of those in memory together, None for no limit; limits, metrics: of every service.

    `get` may be called from any thread.
    """

    def __init__(
        self,
        offers: Mapping[str, Offer],
        most_bytes: int | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.offers, self.most_bytes = dict(offers), most_bytes
        self.limits, self.metrics = limits or Limits(), metrics or Metrics()
        self._loaded: dict[str, _Loaded] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, or on their way into it."""
        return tuple(self._loaded)

    def get(self, name: str) -> Service:
        """The service of a model, when it is ready; waits while it is read.

        KeyError for a name that is not offered. Raises QueueFull where models at work leave no memory for it, Draining where it
        cannot be read.
        """
        service = self._begun(name)
        until = time.monotonic() + self.limits.timeout
        while not service.ready:
            if service.failure is not None:
                failure = service.failure
                self._forget(name, service)
                raise Draining(failure)
            if self._closed or time.monotonic() > until:
                raise Draining("the model is being loaded", BUSY_SECONDS)
            time.sleep(_PAUSE)
        return service

    async def drain(self, seconds: float) -> None:
        """As `Service.drain`, of all at a time."""
        self._closed = True
        await asyncio.gather(*(one.service.drain(seconds) for one in list(self._loaded.values())))

    def close(self) -> None:
        """Ends all of them now."""
        with self._lock:
            self._closed = True
            ended, self._loaded = list(self._loaded.values()), {}
        self._end(ended)

    def _begun(self, name: str) -> Service:
        """The service of a model, which may still be reading it."""
        offer, ended = self.offers[name], list[_Loaded]()
        with self._lock:
            if self._closed:
                raise Draining("the service is stopping")
            if name not in self._loaded:
                ended = self._make_room(offer.bytes)
                service = Service(offer.open(), self.limits, self.metrics)
                self._loaded[name] = _Loaded(service, offer.bytes)
                log.info("model %s is read", name)
                self._end(ended)  # before the new one takes memory
                service.start()
            found = self._loaded[name]
            found.used = time.monotonic()
            return found.service

    def _make_room(self, more: int) -> list[_Loaded]:
        """Takes out of the loaded ones what has to go for so many bytes."""
        ended: list[_Loaded] = []
        if self.most_bytes is None:
            return ended
        idle = sorted((one.used, name) for name, one in self._loaded.items() if self._is_idle(one))
        too_many = sum(one.bytes for one in self._loaded.values()) + more - self.most_bytes
        going: list[str] = []
        for _, name in idle:
            if too_many > 0:
                going.append(name)
                too_many -= self._loaded[name].bytes
        if too_many > 0 and len(going) < len(self._loaded):  # alone, a model is read however large it is
            raise QueueFull("other models are at work and leave no memory for this one; try again later", BUSY_SECONDS)
        for name in going:
            log.info("model %s is closed to make room", name)
            ended.append(self._loaded.pop(name))
        return ended

    @staticmethod
    def _is_idle(one: _Loaded) -> bool:
        return one.service.idle and time.monotonic() - one.used > JUST_USED

    def _forget(self, name: str, service: Service) -> None:
        """A model that could not be read is tried again when it is next asked for."""
        with self._lock:
            found = self._loaded.get(name)
            ended = [self._loaded.pop(name)] if found is not None and found.service is service else []
        self._end(ended)

    @staticmethod
    def _end(ended: Iterable[_Loaded]) -> None:
        for one in ended:
            one.service.close()
