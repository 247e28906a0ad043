"""One request under way, seen from both sides: a worker thread puts events in, an asyncio client takes them out.

`emit(event)` of a worker -> mailbox -> `async for event in job.events()`. Progress that
nobody has read gives way to newer progress, so a slow reader costs no memory.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from llada_uni.requests import Request
from llada_uni.results import EndEvent, ImageEvent, Progress, StreamEvent, TextDelta
from llada_uni.serving.errors import Cancelled, ServingError, TimedOut

MOST_PARTIALS = 3  # partial images of one image (OpenAI's limit)


@dataclass(frozen=True)
class Outcome:
    """All of a finished job. parts: text and images in order; reasoning: the text before an image, or None."""

    parts: tuple[str | ImageEvent, ...]
    reasoning: str | None
    end: EndEvent

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[ImageEvent, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImageEvent))


class Job:
    """A request the service has accepted. id: unique, safe to show; request: what was asked; owner: who asked;
    partial_images: how many are shown of each image on the way.

    One client reads it, from one event loop, with `events` or with `result`.
    """

    def __init__(self, number: str, request: Request, owner: str, timeout: float, partial_images: int = 0) -> None:
        self.id, self.request, self.owner, self.partial_images = number, request, owner, partial_images
        self.arrived = time.monotonic()
        self.deadline, self.timeout = self.arrived + timeout, timeout
        self._lock = threading.Lock()
        self._mail: deque[StreamEvent] = deque()
        self._failure: BaseException | None = None
        self._order: ServingError | None = None  # what the worker is to end with
        self._ended = False
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    # --- the client's side ---

    def cancel(self) -> None:
        """Ask for the end: the job leaves the queue, or the batch at its next step; `events` raises `Cancelled`."""
        self.abort(Cancelled("the request was cancelled"))

    async def events(self) -> AsyncIterator[StreamEvent]:
        """Events in order, `EndEvent` last. Raises what the job failed with: UserError or a `ServingError`.

        The time limit holds here, too: a worker that is late does not keep the client waiting.
        """
        arrived = asyncio.Event()
        with self._lock:
            self._wake = (asyncio.get_running_loop(), arrived)
        while True:
            with self._lock:
                event = self._mail.popleft() if self._mail else None
                ended, failure = self._ended, self._failure
                if event is None:
                    arrived.clear()
            if event is not None:
                yield event
            elif failure is not None:
                raise failure
            elif ended:
                return
            else:
                try:
                    await asyncio.wait_for(arrived.wait(), max(0.0, self.deadline - time.monotonic()))
                except asyncio.TimeoutError:
                    self.abort(self._late())
                    raise self._late() from None

    async def result(self) -> Outcome:
        """Everything, when it is finished. Raises like `events`."""
        parts: list[str | ImageEvent] = []
        reasoning: str | None = None
        async for event in self.events():
            if isinstance(event, TextDelta) and event.reasoning:
                reasoning = (reasoning or "") + event.text
            elif isinstance(event, TextDelta):
                if parts and isinstance(parts[-1], str):
                    parts[-1] += event.text
                else:
                    parts.append(event.text)
            elif isinstance(event, ImageEvent):
                parts.append(event)
            elif isinstance(event, EndEvent):
                return Outcome(tuple(parts), reasoning, event)
        raise AssertionError("a job ends with an EndEvent, or raises")

    # --- the workers' side ---

    def abort(self, error: ServingError) -> None:
        """The worker is to end with this error; the first order counts."""
        with self._lock:
            self._order = self._order or error

    def check(self) -> None:
        """Raises when the job is to end now: what it was aborted with, or TimedOut."""
        if self._order is not None:
            raise self._order
        if time.monotonic() > self.deadline:
            raise self._late()

    def _late(self) -> TimedOut:
        return TimedOut(f"the request took longer than {self.timeout:g} seconds")

    def emit(self, event: StreamEvent) -> None:
        """Give the client an event. Progress takes the place of progress in the same stage that was not read yet."""
        with self._lock:
            last = self._mail[-1] if self._mail else None
            if isinstance(event, Progress) and isinstance(last, Progress) and event.stage == last.stage:
                self._mail.pop()
            self._mail.append(event)
        self._notify()

    def end(self, failure: BaseException | None = None) -> None:
        """No more events."""
        with self._lock:
            self._ended, self._failure = True, failure
        self._notify()

    def _notify(self) -> None:
        wake = self._wake
        if wake is not None:
            loop, arrived = wake
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the client's loop is closed: nobody reads any more
                self.cancel()
