"""A model at work for many: jobs wait in a queue, worker threads run their tasks, one thread owns the backbone.

A request becomes a job by `Service.submit`; a worker thread runs the ordinary task code for it (work.py) on shared parts
(shared_parts.py), which gives events of the job. Images are encoded and decoded by the workers themselves, in a few
lanes; `lanes` of them share the CPU's threads.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.model import UniModel
from llada_uni.requests import Chat, Request, Understand
from llada_uni.results import EndEvent
from llada_uni.serving.errors import Draining, Failed, QueueFull, ServingError
from llada_uni.serving.memory import Trimmer
from llada_uni.serving.metrics import Metrics
from llada_uni.serving.scheduler.job import Job
from llada_uni.serving.scheduler.lanes import TOGETHER, Lanes, try_together
from llada_uni.serving.scheduler.limits import Limits, check_request
from llada_uni.serving.scheduler.model_thread import ModelThread
from llada_uni.serving.scheduler.shared_parts import LIGHT, SharedParts
from llada_uni.serving.scheduler.work import work

log = logging.getLogger(__name__)

LOST = "files of the model are gone, and this request needs them"
ROWS = 2  # sequences of one job in the usual guidance
LOADING_SECONDS = 5  # after which to ask again while the model is being read
CPU_LANES = 2  # pictures decoded at a time on a CPU, whose threads they share


class Service:
    """Takes requests and gives jobs. `start` returns at once; `ready` says when the model is in memory.

    limits, metrics: None for the usual. Methods may be called from any thread.
    """

    def __init__(self, model: UniModel, limits: Limits | None = None, metrics: Metrics | None = None) -> None:
        self.model, self.limits, self.metrics = model, limits or Limits(), metrics or Metrics()
        self._changed = threading.Condition()  # guards all that follows
        self._queue: deque[Job] = deque()
        self._running: set[Job] = set()
        self._closed: str | None = "the service has not begun"  # why nothing is taken
        self._stopped = False
        self._failure: str | None = None
        self._lost = False
        self._threads: list[threading.Thread] = []
        self._model_thread: ModelThread | None = None
        self._names = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count(1))
        self._lanes = Lanes(CPU_LANES if self._shares_processor else 1)
        self._trimmer = Trimmer()
        self._threads_before = torch.get_num_threads()
        self.metrics.watch(self, lambda: len(self._running), lambda: len(self._queue))

    # --- its life ---

    def start(self) -> None:
        """Load the model and begin to work, in threads of its own."""
        self._closed = "the model is being loaded"
        self._trimmer.start()
        self._spawn("loader", self._begin)

    @property
    def ready(self) -> bool:
        """The model is in memory and new tasks are taken."""
        return self._closed is None and self.failure is None

    @property
    def failure(self) -> str | None:
        """Why the model could not be loaded, in one line, or that files which a request needed are gone; None where all is
        well, or the model is being loaded.
        """
        if self._lost and self.model.parts.folder.is_dir():
            self._lost = False
        return LOST if self._lost else self._failure

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits, and the model is not being read."""
        with self._changed:
            return not (self._running or self._queue) and (self._closed is None or self._failure is not None)

    async def drain(self, seconds: float) -> bool:
        """Refuse what comes and what waits (Draining), finish what runs, at most `seconds`. True if all of it ended."""
        with self._changed:
            self._closed = "the service is stopping"
            self._refuse_waiting()
        until = time.monotonic() + seconds
        while self._running and time.monotonic() < until:
            await asyncio.sleep(0.05)
        return not self._running

    def close(self) -> None:
        """End everything now: what still runs fails with Draining. Threads have ended and memory is free after it."""
        with self._changed:
            self._closed, self._stopped = "the service has stopped", True
            self._refuse_waiting()
            for job in self._running:
                job.abort(Draining(self._closed))
            self._changed.notify_all()
        self.metrics.forget(self)
        self._trimmer.close()
        for thread in list(self._threads):
            thread.join()
        if self._model_thread is not None:
            self._model_thread.close()
            self._model_thread = None
            torch.set_num_threads(self._threads_before)

    # --- requests ---

    def submit(self, request: Request, owner: str = "", partial_images: int = 0) -> Job:
        """Take a request. partial_images: shown of each image on the way. Raises QueueFull or Draining; UserError for one
        beyond the limits.
        """
        try:
            check_request(request, self.limits, partial_images)
            with self._changed:
                self._check_open()
                job = Job(next(self._names), request, owner, self.limits.timeout, partial_images)
                self._queue.append(job)
                self._changed.notify()
        except (UserError, ServingError) as error:
            self.metrics.failed(error)
            raise
        return job

    def _check_open(self) -> None:
        if self._closed is not None:
            raise Draining(self._failure or self._closed, LOADING_SECONDS)
        self._drop_ended()
        free = self.limits.max_batch - len(self._running)
        if len(self._queue) >= self.limits.max_queue + free:
            most = self.limits.max_queue
            raise QueueFull(f"{most} requests wait already; try again later", 1 + most // self.limits.max_batch)

    def _drop_ended(self) -> None:
        """Jobs whose client has gone, or whose time is over, leave the queue."""
        waiting, self._queue = self._queue, deque()
        for job in waiting:
            try:
                job.check()
            except ServingError as error:
                self._refuse(job, error)
            else:
                self._queue.append(job)

    def _refuse_waiting(self) -> None:
        while self._queue:
            self._refuse(self._queue.popleft(), Draining(self._closed or ""))
        self._changed.notify_all()

    def _refuse(self, job: Job, error: Exception) -> None:
        self.metrics.failed(error)
        job.end(error)

    # --- threads ---

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"llada-uni {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _begin(self) -> None:
        """Read the model, then open the queue; a model that cannot be read leaves the service up, but closed."""
        try:
            self._load()
        except Exception as error:
            known = isinstance(error, UserError)
            log.error("the model cannot be loaded: %s", error, exc_info=None if known else error)
            line = str(error).splitlines()[0] if known else f"{type(error).__name__} while it was read"
            self._failure = f"the model cannot be loaded: {self._without_paths(line)}"
            return
        with self._changed:
            if self._stopped:
                return
            limits = self.limits
            self._model_thread = ModelThread(
                self.model.parts.backbone,
                ROWS * limits.max_batch,
                limits.prefix_cache_bytes,
                self.metrics,
                self._crowded,
            )
            self._model_thread.start()
            for number in range(limits.max_batch):
                self._spawn(f"worker {number}", self._serve)
            self._closed = None

    def _load(self) -> None:
        """Read every part that the directory has, so that a broken one is found now and jobs share them all."""
        torch.set_num_threads(self._threads_each())
        parts = self.model.parts
        for name in LIGHT:
            getattr(parts, name)
        _ = parts.backbone
        if IMAGE_TOKENIZER.there(parts.folder):
            _ = parts.image_tokenizer
        decoder = parts.decoder
        if decoder.variants and not parts.offload:
            _ = decoder.sigvq, decoder.vae, [decoder.transformer(variant) for variant in decoder.variants]
            self._lanes.together = self._pictures_together()

    @property
    def _shares_processor(self) -> bool:
        """Several threads compute side by side: on a CPU, unless parts of the decoder come and go."""
        return self.model.parts.device.type == "cpu" and not self.model.parts.offload

    def _pictures_together(self) -> int:
        """How many pictures are decoded together: several only where that changes no bit of them."""
        parts = self.model.parts
        usual, decoder = parts.defaults.generate, parts.defaults.decode.decoder
        if not self._shares_processor or decoder not in parts.decoder.variants:
            return 1
        rows, columns = usual.height // parts.pixels_per_code, usual.width // parts.pixels_per_code
        return TOGETHER if try_together(parts.decoder, rows, columns, decoder) else 1

    def _crowded(self) -> bool:
        return self._shares_processor and self._lanes.crowded

    def _threads_each(self) -> int:
        """CPU threads of every network: the lanes and the model thread compute side by side."""
        return max(1, self._threads_before // CPU_LANES)

    def _serve(self) -> None:
        """A worker: one job after another."""
        torch.set_num_threads(self._threads_each())
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """One job from beginning to end; nothing of it is kept while the worker waits for the next. False: no more."""
        job = self._next()
        if job is None:
            return False
        outcome = self._work(job)
        self._trimmer.worked()
        with self._changed:
            self._running.remove(job)  # before its client can know of the end
        if isinstance(outcome, EndEvent):
            self.metrics.finished(type(job.request).__name__.lower(), outcome, time.monotonic() - job.arrived)
            job.emit(outcome)
            job.end()
        else:
            self._refuse(job, outcome)
        return True

    def _next(self) -> Job | None:
        """The job whose turn it is; None at the end."""
        with self._changed:
            while True:
                self._drop_ended()
                if self._queue:
                    job = self._whose_turn()
                    self._queue.remove(job)
                    self._running.add(job)
                    return job
                if self._stopped:
                    return None
                self._changed.wait()

    def _whose_turn(self) -> Job:
        """The one that has waited longest; words alone go first while pictures wait for a lane, which keeps them anyway."""
        words = (job for job in self._queue if isinstance(job.request, Chat | Understand))
        return next(words, self._queue[0]) if self._lanes.crowded else self._queue[0]

    def _work(self, job: Job) -> EndEvent | Exception:
        """Runs a job; returns its end, or what its client is to be told when it failed."""
        try:
            job.check()
            assert self._model_thread is not None, "workers run while it does"
            parts = SharedParts(self.model.parts, self._model_thread, self._lanes, job.check)
            return work(parts, job.request, job.emit, job.partial_images)
        except UserError as error:
            if not self.model.parts.folder.is_dir():  # what the files would have said is no fault of the asker
                return self._files_are_gone(error)
            return UserError(self._without_paths(str(error)))
        except OSError as error:
            if not self.model.parts.folder.is_dir():
                return self._files_are_gone(error)
            log.exception("job %s (%s) failed", job.id, type(job.request).__name__)
            return Failed("something broke while the request was worked on")
        except ServingError as error:
            return error
        except Exception:
            log.exception("job %s (%s) failed", job.id, type(job.request).__name__)
            return Failed("something broke while the request was worked on")

    def _files_are_gone(self, error: Exception) -> Failed:
        """The model's directory is not there any more. Parts in memory serve on; a request that needs others fails."""
        log.error("the model directory is gone: %s", error)
        self._lost = True
        return Failed(LOST)

    def _without_paths(self, line: str) -> str:
        """An answer says nothing about where files are."""
        return line.replace(str(self.model.parts.folder), "the model")
