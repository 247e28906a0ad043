"""The one thread that owns the backbone: requests of many worker threads ride in its batches.

A worker calls `generate` and waits -> the thread adds its request to the BatchEngine -> step after
step for all of them -> the worker gets its step events (and runs its own listener), then the Generation. A request that
fails, fails alone; a forward that fails takes with it those that were under way, and the engine is made again.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from llada_uni.backbone import Backbone
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Generation, StepEvent
from llada_uni.serving.errors import Draining, Failed, ServingError
from llada_uni.serving.metrics import Metrics

log = logging.getLogger(__name__)

GOOD_COMPANY = 8  # requests of a batch that need not wait for more
PATIENCE, LONGEST_PAUSE = 3.0, 0.2  # how long others are waited for: in times of a step, and in seconds

Check = Callable[[], None]  # raises when the request is to end


@dataclass(eq=False)
class _Call:
    """A request between its worker and the thread. mail: step events, then the result or what went wrong."""

    request: Request
    check: Check
    mail: queue.SimpleQueue[StepEvent | Generation | Exception] = field(default_factory=queue.SimpleQueue)
    left: bool = False  # the worker does not wait any more


class ModelThread:
    """Runs a BatchEngine. max_rows, prefix_cache_bytes: see there.

    crowded: whether others have full use for the processor meanwhile. Then a small batch waits for company between two
    steps: a step for eight costs little more than one for two, and what it costs is taken from the others.
    `start` begins, `close` ends it: calls under way, and all later ones, then fail with Draining.
    """

    def __init__(
        self,
        backbone: Backbone,
        max_rows: int,
        prefix_cache_bytes: int,
        metrics: Metrics,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.backbone, self.max_rows, self.prefix_cache_bytes = backbone, max_rows, prefix_cache_bytes
        self.metrics, self.crowded = metrics, crowded
        self._engine = self._new_engine()
        self._arrived: deque[_Call] = deque()
        self._under_way: dict[int, _Call] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="llada-uni model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the step it is in, and waits for that."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def generate(self, request: Request, check: Check) -> Generation:
        """The result of one request, computed together with others; called by worker threads.

        request.on_step runs in the calling thread. check: called before every step; what it raises ends the request
        and is raised here. Raises UserError like `Engine.generate`, Failed when the forward broke.
        """
        call = _Call(request, check)
        call.request = dataclasses.replace(request, on_step=call.mail.put)
        with self._wake:
            if self._closing:
                raise Draining("the service has stopped")
            self._arrived.append(call)
            self._wake.notify()
        try:
            while True:
                item = call.mail.get()
                if isinstance(item, Generation):
                    return item
                if isinstance(item, Exception):
                    raise item
                if request.on_step is not None:
                    request.on_step(item)
        finally:
            call.left = True  # its own listener may have raised

    # --- the thread ---

    def _run(self) -> None:
        try:
            while self._take():
                self._drop_ended()
                self._step()
        finally:  # whatever ended the thread, nobody waits for it in vain
            with self._wake:
                self._closing = True
                self._end(self._arrived, Draining("the service has stopped"))
            self._end(self._under_way.values(), Draining("the service has stopped"))

    def _take(self) -> bool:
        """Add what has arrived to the engine; waits while there is nothing to do. False: the end."""
        with self._wake:
            while not (self._arrived or self._under_way or self._closing):
                self._wake.wait()
            if self._closing:
                return False
            arrived, self._arrived = self._arrived, deque()
        for call in arrived:
            try:
                self._under_way[self._engine.add(call.request)] = call
            except Exception as error:  # a wrong request is its worker's affair
                call.mail.put(error)
        return True

    def _drop_ended(self) -> None:
        """Take those out of the batch that nobody waits for, or that are to end."""
        for ticket, call in list(self._under_way.items()):
            try:
                call.check()
            except ServingError as error:
                call.mail.put(error)
                call.left = True
            if call.left:
                self._engine.cancel(ticket)
                del self._under_way[ticket]

    def _step(self) -> None:
        """One forward for all under way; what is finished goes to its worker."""
        together, began = len(self._under_way), time.perf_counter()
        try:
            finished = self._engine.step()
        except Exception:
            log.exception("a forward failed; %d requests under way fail with it", together)
            self._end(self._under_way.values(), Failed("the model failed while it worked on this request"))
            self._under_way.clear()
            self._engine = self._new_engine()
            return
        for ticket, result in finished:
            self._under_way.pop(ticket).mail.put(result if result.failure is None else result.failure)
            self.metrics.generated(result)
        self.metrics.stepped(together, self._engine)
        if together < GOOD_COMPANY and self.crowded():
            time.sleep(min(PATIENCE * (time.perf_counter() - began), LONGEST_PAUSE))

    @staticmethod
    def _end(calls: Iterable[_Call], error: Exception) -> None:
        for call in calls:
            call.mail.put(error)

    def _new_engine(self) -> BatchEngine:
        return BatchEngine(self.backbone, self.max_rows, self.prefix_cache_bytes)
