"""Services and servers for the HTTP tests: a scripted service without a model, the tiny model, and real uvicorn.

A script (a function that emits events) or a model directory -> a service -> an application -> a
server on a free port of this machine, in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image

from llada_uni.image.codes import ImageCodes
from llada_uni.requests import Request
from llada_uni.results import EndEvent, Evaluations, ImageEvent, StreamEvent, TextDelta, Usage
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.metrics import Metrics
from llada_uni.serving.scheduler.job import Job
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.tasks.defaults import Defaults

PATIENCE = 60.0  # seconds a test waits for what must come; never for what must not
Script = Callable[[Job], None]


def picture(color: str = "red", size: tuple[int, int] = (8, 4), number: int = 1, seed: int = 0) -> ImageEvent:
    return ImageEvent(Image.new("RGB", size, color), ImageCodes((1, 2), 1, 2), number, seed=seed)


def finished(seed: int = 0, reason: str = "stop") -> EndEvent:
    return EndEvent(reason, seed, Evaluations(3), {"total": 0.1}, Usage(5, 7, 1))


def say(*events: StreamEvent) -> Script:
    """A script that emits these events."""

    def script(job: Job) -> None:
        for event in events:
            job.emit(event)

    return script


def words(job: Job) -> None:
    job.emit(TextDelta("a cat"))
    job.emit(TextDelta(" and a dog"))
    job.emit(finished(job.request.seed))


def one_picture(job: Job) -> None:
    job.emit(picture(seed=job.request.seed))
    job.emit(finished(job.request.seed))


def until_cancelled(job: Job) -> None:
    """The end of a script that has nothing more to say: waits until somebody ends the job."""
    while True:
        job.check()
        time.sleep(0.005)


class ScriptedService:
    """A service whose jobs run a script, each in a thread; what the script raises is the job's failure. ends: how the
    scripts ended so far, each with an exception or None.
    """

    ready, failure = True, None

    def __init__(self, script: Script, limits: Limits | None = None) -> None:
        self.script, self.limits = script, limits or Limits()
        self.metrics = Metrics()
        self.model = SimpleNamespace(
            folder=Path("/somewhere/models/scripted"), parts=SimpleNamespace(defaults=Defaults(sizes=("32x32",)))
        )
        self.jobs: list[Job] = []
        self.owners: list[str] = []
        self.ends: list[Exception | None] = []

    def submit(self, request: Request, owner: str = "", partial_images: int = 0) -> Job:
        job = Job(f"job-{len(self.jobs)}", request, owner, self.limits.timeout, partial_images)
        self.jobs.append(job)
        self.owners.append(owner)
        threading.Thread(target=self._run, args=(job,), daemon=True).start()
        return job

    def _run(self, job: Job) -> None:
        failure = None
        try:
            self.script(job)
        except Exception as error:
            failure = error
        job.end(failure)
        self.ends.append(failure)

    @property
    def requests(self) -> list[Request]:
        return [job.request for job in self.jobs]


def scripted(script: Script, limits: Limits | None = None, **options: Any) -> tuple[ScriptedService, httpx.AsyncClient]:
    """A scripted service, and a client that talks to its application without a network."""
    service = ScriptedService(script, limits)
    return service, asgi_client(create_app(service, ServerOptions(model_name="scripted", **options)))


def asgi_client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=PATIENCE)


def ask(client: httpx.AsyncClient, path: str, method: str = "POST", **request: Any) -> httpx.Response:
    """One request of a client made by `scripted`."""
    return asyncio.run(client.request(method, path, **request))


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer, in OpenAI's form."""
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and "\n" not in body["error"]["message"]
    return body["error"]


def events_of(text: str) -> list[tuple[str | None, Any]]:
    """(name, data) of every event of a stream; data as JSON, or "[DONE]"; comments are passed over."""
    events = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        data = fields["data"]
        events.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return events


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_uri(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def opened(b64: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(b64.removeprefix("data:image/png;base64,"), validate=True)))
    image.load()
    return image


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"waited for {what} in vain"
        time.sleep(0.01)


@contextmanager
def live(app: FastAPI) -> Iterator[str]:
    """The address of a real server, on a free port, in a thread."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the server to listen")
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
