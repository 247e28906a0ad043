"""What a service counts, for Prometheus: a registry of its own, so that several services can live in one process.

Steps and results of the model thread, ends of jobs -> counters and histograms -> the text of
`/metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from llada_uni.errors import UserError
from llada_uni.results import EndEvent

if TYPE_CHECKING:
    from llada_uni.generation.batch import BatchEngine
    from llada_uni.generation.settings import Generation

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
COUNTS = (1, 2, 4, 8, 16, 32, 64)
PREFIX = "llada_uni"


class Metrics:
    """All numbers of one service. `content_type` goes with `render`."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=registry)

        self.running = gauge("jobs_running", "Jobs that a worker has in hand")
        self.waiting = gauge("jobs_waiting", "Jobs in the queue")
        self.seconds = histogram("job_seconds", "From arrival to the end of a finished job", SECONDS, "task")
        self.failures = counter("failures", "Jobs that ended without a result, and refusals", "kind")
        self.tokens = counter("tokens", "Tokens of finished jobs", "kind")
        self.evaluations = counter("evaluations", "Runs of each network for finished jobs", "network")
        self.pictures = counter("pictures", "Pictures of finished jobs")
        self.accepted = histogram("accepted_per_step", "Tokens a step of one request accepted", COUNTS)
        self.batch = histogram("batch_requests", "Requests in one forward of the backbone", COUNTS)
        self.prefix_bytes = gauge("prefix_cache_bytes", "Memory of shared beginnings of prompts")
        self.prefix_hits = gauge("prefix_cache_hits", "Blocks of prompts that needed no computing, since the engine began")

        self._watched: dict[object, tuple[Callable[[], int], Callable[[], int]]] = {}
        for place, jobs in enumerate((self.running, self.waiting)):
            jobs.set_function(partial(self._count, place))

    def _count(self, place: int) -> float:
        return float(sum(count[place]() for count in list(self._watched.values())))

    def watch(self, service: object, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """The two gauges of jobs count those of a service, too, until it is forgotten."""
        self._watched[service] = (running, waiting)

    def forget(self, service: object) -> None:
        self._watched.pop(service, None)

    def stepped(self, together: int, engine: BatchEngine) -> None:
        """After a forward for so many requests."""
        self.batch.observe(together)
        self.prefix_bytes.set(engine.prefixes.bytes)
        self.prefix_hits.set(engine.prefixes.hits)

    def generated(self, result: Generation) -> None:
        """One request of the engine has ended."""
        for accepted in result.accepted:
            self.accepted.observe(accepted)

    def finished(self, task: str, event: EndEvent, seconds: float) -> None:
        """A job has given its result; seconds: since it arrived."""
        self.seconds.labels(task).observe(seconds)
        self.tokens.labels("prompt").inc(event.usage.prompt_tokens)
        self.tokens.labels("completion").inc(event.usage.completion_tokens)
        self.pictures.inc(event.usage.images)
        for network, times in event.evaluations.to_json().items():
            self.evaluations.labels(network).inc(times)

    def failed(self, error: BaseException) -> None:
        """A job, or an attempt to submit one, has ended without a result."""
        self.failures.labels(type(error).__name__).inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def listen(self, host: str, port: int) -> None:
        """Answers at a port of its own, which needs no key: for a network that only the operator reaches. UserError where the
        port cannot be had.
        """
        try:
            start_http_server(port, host, self.registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot listen on {host}, port {port}, for metrics ({reason})") from None
