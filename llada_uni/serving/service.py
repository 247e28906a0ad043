"""A model at work for many: jobs wait in a queue, worker threads run their tasks, one thread owns the networks.

What flows through: Task -> `Service.submit` -> Job -> a worker, which runs the ordinary task code -> events of the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llada_uni.serving.job import Job
from llada_uni.serving.limits import Limits
from llada_uni.serving.tasks import Task

if TYPE_CHECKING:
    from llada_uni.model import UniModel
    from llada_uni.serving.metrics import Metrics


class Service:
    """Takes tasks and gives jobs. `start` returns at once; `ready` says when the model is in memory."""

    def __init__(self, model: UniModel, limits: Limits | None = None, metrics: Metrics | None = None) -> None:
        self.model, self.limits, self.metrics = model, limits or Limits(), metrics

    def start(self) -> None:
        """Load the model and begin to work, in threads of its own."""

    def submit(self, task: Task, owner: str = "") -> Job:
        """Take a task. Raises QueueFull or Draining; UserError for one beyond the limits."""
        raise NotImplementedError

    async def drain(self, seconds: float) -> bool:
        """Refuse what comes and what waits (Draining), finish what runs, at most `seconds`. True if all of it ended."""
        raise NotImplementedError

    def close(self) -> None:
        """End everything now: what still runs fails with Draining. Threads are joined, memory is freed."""

    @property
    def ready(self) -> bool:
        """The model is in memory and new tasks are taken."""
        return False

    @property
    def failure(self) -> str | None:
        """Why the model could not be loaded, in one line; None when it was, or is being."""
        return None
