"""The server under load: latencies, throughput against one client at a time, refusals above its limits, memory.

A real server (`llada-uni serve`, the shipped model) runs as a process on a free port; clients of this process ask it for
five tasks in turn: draw, chat about a picture, edit, words, a story of words and pictures. Every answer is checked: a
picture is decoded, words are not empty. One client at a time runs before and after the crowd, so that a slow minute of
the machine hits both. Time of the clients counts, as they share the machine.

    python -m benchmarks.serving [--quick] [--clients 64] [--minutes 2] [--soak 10] [--json FILE]

Requests of the mix -> Answer (status, seconds, what was wrong) -> rows: a task each with p50 and p95,
throughput, refusals, memory of the server process (resident bytes).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from PIL import Image

from benchmarks.common import Row, arguments, progress, run, start
from scripts.server_process import ServerProcess

ANIMALS = ("cat", "dog", "pig", "fish", "fox", "cow")
PLACES = ("top left", "top right", "bottom left", "bottom right")
ANSWER_SECONDS = 600.0  # for one answer, waiting included


@dataclass(frozen=True)
class Ask:
    """One request of the mix. check: None, or what is wrong with the answer's body."""

    task: str
    path: str
    body: dict[str, Any]
    check: Callable[[Any], str | None]


@dataclass(frozen=True)
class Answer:
    """status 0: no answer at all. fault: what was wrong with an answer of status 200, or why there was none."""

    task: str
    status: int
    seconds: float
    fault: str | None = None
    retry_after: str | None = None

    @property
    def good(self) -> bool:
        return self.status == 200 and self.fault is None


# --- the mix ---


def picture_fault(encoded: str) -> str | None:
    """What is wrong with a base64 picture: it must decode, and hold more than one color."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    except Exception as error:
        return f"no picture ({type(error).__name__})"
    return None if len(image.getcolors(image.width * image.height)) > 1 else "a picture of one color"


def check_images(body: Any) -> str | None:
    return picture_fault(body["data"][0]["b64_json"])


def check_words(body: Any) -> str | None:
    return None if body["choices"][0]["message"]["content"].strip() else "no words"


def check_story(body: Any) -> str | None:
    parts = body["choices"][0]["message"]["content"]
    pictures = [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
    if not any(part["type"] == "text" and part["text"].strip() for part in parts) or not pictures:
        return "a story needs words and pictures"
    return next(filter(None, map(picture_fault, pictures)), None)


def mix(number: int, picture: str) -> Ask:
    """The request of this number; five in turn are five tasks. picture: a data URI."""
    animal, other = ANIMALS[number % 6], ANIMALS[number // 6 % 6]
    place = PLACES[number // 5 % 4]
    chat, shown = "/v1/chat/completions", {"type": "image_url", "image_url": {"url": picture}}

    def said(*parts: Any, **more: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": list(parts)}], "seed": number, **more}

    def text(words: str) -> dict[str, str]:
        return {"type": "text", "text": words}

    asks = (
        Ask("draw", "/v1/images/generations", {"prompt": f"a {animal} and a {other} on green", "seed": number}, check_images),
        Ask("chat", chat, said(shown, text(f"what is at the {place}?")), check_words),
        Ask("edit", "/v1/images/edits", {"image": picture, "prompt": f"add a {animal}", "seed": number}, check_images),
        Ask("words", chat, said(shown, text("describe the picture")), check_words),
        Ask("story", chat, said(text(f"tell a story about a {animal}"), modalities=["text", "image"]), check_story),
    )
    return asks[number % len(asks)]


async def ask(client: httpx.AsyncClient, what: Ask) -> Answer:
    begin = time.perf_counter()
    try:
        response = await client.post(what.path, json=what.body)
        seconds = time.perf_counter() - begin
        fault = what.check(response.json()) if response.status_code == 200 else None
    except (httpx.HTTPError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return Answer(what.task, 0, time.perf_counter() - begin, f"{type(error).__name__}: {error}")
    return Answer(what.task, response.status_code, seconds, fault, response.headers.get("retry-after"))


async def crowd(
    client: httpx.AsyncClient, clients: int, seconds: float, picture: str, numbers: Iterator[int]
) -> tuple[list[Answer], float]:
    """(answers, seconds until the last one) of so many clients that begin requests for so long."""
    answers: list[Answer] = []
    begin = time.perf_counter()

    async def one() -> None:
        while time.perf_counter() - begin < seconds:
            answers.append(await ask(client, mix(next(numbers), picture)))

    await asyncio.gather(*(one() for _ in range(clients)))
    return answers, time.perf_counter() - begin


# --- the server ---


# --- phases ---


def percentile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def faults_of(answers: Sequence[Answer]) -> dict[str, int]:
    """How often each status, or fault of an answer with status 200, came that is no good answer."""
    return dict(Counter(answer.fault or str(answer.status) for answer in answers if not answer.good))


def task_rows(answers: Sequence[Answer], alone: Sequence[Answer]) -> list[Row]:
    """p50 of each task in the crowd, against one client; p95 beside it."""
    rows = []
    for task in dict.fromkeys(answer.task for answer in answers):
        many, single = (
            [answer.seconds for answer in group if answer.task == task and answer.good] for group in (answers, alone)
        )
        if many and single:
            more = {"p95": percentile(many, 0.95), "p95 alone": percentile(single, 0.95), "answers": len(many)}
            rows.append(Row(f"{task}: p50", "one client", "s", percentile(many, 0.5), percentile(single, 0.5), None, more))
    return rows


async def measured(
    server: ServerProcess, client: httpx.AsyncClient, clients: int, seconds: float, picture: str, numbers: Iterator[int]
) -> tuple[list[Answer], float, float]:
    """Answers, good ones a second, and the server's processor seconds a request."""
    before = server.processor_seconds
    answers, took = await crowd(client, clients, seconds, picture, numbers)
    return answers, sum(answer.good for answer in answers) / took, (server.processor_seconds - before) / len(answers)


async def load(server: ServerProcess, client: httpx.AsyncClient, options: argparse.Namespace, picture: str) -> list[Row]:
    """One client, the crowd, one client again."""
    seconds, numbers = options.minutes * 60, itertools.count()
    progress(f"one client, {seconds / 4:.0f} s")
    first, rate_first, cost_first = await measured(server, client, 1, seconds / 4, picture, numbers)
    progress(f"{options.clients} clients, {seconds:.0f} s")
    answers, rate, cost = await measured(server, client, options.clients, seconds, picture, numbers)
    progress(f"one client, {seconds / 4:.0f} s")
    second, rate_second, cost_second = await measured(server, client, 1, seconds / 4, picture, numbers)
    alone, cost_alone = (rate_first + rate_second) / 2, (cost_first + cost_second) / 2
    faults = faults_of([*first, *answers, *second])
    more = {"answers": len(answers), "failed": sum(faults.values()), "failures": faults}
    throughput = Row(f"throughput, {options.clients} clients", "one client", "1/s", rate, alone, rate / alone, more)
    processor = Row("processor time of a request", "one client", "s", cost, cost_alone, cost_alone / cost)
    return [throughput, processor, *task_rows(answers, [*first, *second])]


async def overload(server: ServerProcess, client: httpx.AsyncClient, most: int) -> Row:
    """More requests at once than the server takes: those too many are refused, and told when to come back."""
    progress(f"{2 * most} requests at once, where {most} are allowed")
    body = {"prompt": "a cat", "decoder_steps": 1}  # cheap, but not so cheap that they are done before all have come
    what = Ask("draw", "/v1/images/generations", body, check_images)
    answers = await asyncio.gather(*(ask(client, what) for _ in range(2 * most)))
    refused = [answer for answer in answers if answer.status == 429]
    more = {
        "statuses": dict(Counter(answer.status for answer in answers)),
        "with Retry-After": sum(answer.retry_after is not None for answer in refused),
        "others": sum(answer.status not in (200, 429) for answer in answers),
    }
    return Row("refused above the limits (429)", "", "", len(refused), more=more)


async def soak(server: ServerProcess, client: httpx.AsyncClient, options: argparse.Namespace, picture: str) -> Row:
    """Memory over a long load: its growth from the end of the first fifth to the end."""
    seconds, samples, numbers = options.soak * 60, [], itertools.count(10**6)
    progress(f"memory under {options.clients} clients, {seconds:.0f} s")

    async def watch() -> None:
        while True:
            samples.append((time.perf_counter(), server.memory))
            await asyncio.sleep(min(1.0, seconds / 20))

    watching = asyncio.create_task(watch())
    begin = time.perf_counter()
    answers, took = await crowd(client, options.clients, seconds, picture, numbers)
    watching.cancel()
    settled = next((memory for at, memory in samples if at - begin >= took / 5), server.memory)
    growth = server.memory / settled - 1 if settled else 0.0
    faults = faults_of(answers)
    more = {
        "growth": growth, "peak": max(memory for _, memory in samples), "answers": len(answers),
        "failed": sum(faults.values()), "failures": faults,
    }  # fmt: skip
    return Row("resident memory at the end", "after a fifth of it", "bytes", server.memory, settled, None, more)


async def drain(server: ServerProcess, client: httpx.AsyncClient, clients: int, picture: str) -> Row:
    """The server is told to stop under load: every request is answered or refused, and the exit code is 0."""
    progress(f"stop under {clients} requests")
    asked = [asyncio.create_task(ask(client, mix(number, picture))) for number in range(clients)]
    await asyncio.sleep(1.0)
    code = await asyncio.to_thread(server.stop)
    answers = await asyncio.gather(*asked)
    lost = sum(answer.status == 0 for answer in answers)
    more = {"statuses": dict(Counter(answer.status for answer in answers)), "exit code": code}
    return Row("lost when told to stop under load", "", "", lost, more=more)


async def measure(options: argparse.Namespace) -> list[Row]:
    waiting = 2 * options.clients
    server = ServerProcess("--max-queue", str(waiting))
    most = 32 + waiting
    try:
        server.until_ready()
        limits = httpx.Limits(max_connections=2 * most, max_keepalive_connections=2 * most)
        async with httpx.AsyncClient(base_url=server.address, timeout=ANSWER_SECONDS, limits=limits) as client:
            drawn = await client.post("/v1/images/generations", json={"prompt": "a cat and a dog on green", "seed": 1})
            picture = "data:image/png;base64," + drawn.json()["data"][0]["b64_json"]
            for number in range(5):
                await ask(client, mix(number, picture))
            rows = await load(server, client, options, picture)
            rows.append(await overload(server, client, most))
            if options.soak:
                rows.append(await soak(server, client, options, picture))
            rows.append(await drain(server, client, options.clients, picture))
        return rows
    finally:
        server.process.kill()


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(
        __doc__,
        clients={"type": int, "default": 64, "help": "clients at a time"},
        minutes={"type": float, "default": 2.0, "help": "of load"},
        soak={"type": float, "default": 0.0, "help": "minutes under load for which memory is watched"},
    )
    options = start(parser, given)
    if options.quick:
        options.clients, options.minutes, options.soak = min(options.clients, 8), 0.1, 0.1
    return run(lambda: asyncio.run(measure(options)), options.json)


if __name__ == "__main__":
    sys.exit(main())
