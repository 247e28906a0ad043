"""The server over hours: does its memory stay where it is? A paced, mixed load, and a curve of resident memory.

A real server (`llada-uni serve`, the shipped model) gets so many requests a minute, each drawn from a mix that real use
has: the five tasks of `benchmarks.serving`, pictures of many sizes and formats, streams with partial images, clients that
leave in the middle, and bodies that are refused. Resident memory is written down as the load goes on, so a run that is cut
off has its curve, too.

    python -m benchmarks.soak --hours 4 [--rate 20] [--clients 4] [--curve FILE.csv] [--plot FILE.svg]
                              [--serve "--max-batch 8"] [--json FILE]

Requests -> a line of the curve a sample (seconds, resident bytes, requests, failures, mean seconds) -> a row: memory at the
end against memory after the first half hour (of a shorter run, after its first quarter).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import random
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
from PIL import Image

from benchmarks.common import Row, arguments, progress, run, start
from benchmarks.serving import ANSWER_SECONDS, ask, mix
from scripts.server_process import ServerProcess

SETTLING_SECONDS = 1800.0  # caches fill and every thread has worked once
SAMPLES = 400  # of the curve, at most one a second
SIDES = (48, 97, 160, 192, 250, 333, 512)
FORMATS = ("PNG", "JPEG", "WEBP")
COLUMNS = "seconds,resident_bytes,requests,failures,mean_seconds"


@dataclass
class Curve:
    """Samples (seconds, resident bytes), and what was asked so far."""

    file: TextIO
    began: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    def sample(self, memory: int) -> None:
        at = time.monotonic() - self.began
        self.samples.append((at, memory))
        mean = statistics.fmean(self.seconds) if self.seconds else 0.0
        self.seconds.clear()
        print(f"{at:.0f},{memory},{self.requests},{len(self.failures)},{mean:.2f}", file=self.file, flush=True)

    def growth(self) -> tuple[float, float]:
        """(median memory of the last tenth, median of the tenth after settling)."""
        end = self.samples[-1][0]
        settled = min(SETTLING_SECONDS, end / 4)
        width = max(end / 10, 1.0)
        first = [memory for at, memory in self.samples if settled <= at <= settled + width] or [self.samples[-1][1]]
        last = [memory for at, memory in self.samples if at >= end - width]
        return statistics.median(last), statistics.median(first)


def some_picture(chance: random.Random, drawn: Image.Image) -> str:
    """A data URI: the drawn picture at some size, in some format."""
    width, height = chance.choice(SIDES), chance.choice(SIDES)
    kind, file = chance.choice(FORMATS), io.BytesIO()
    drawn.resize((width, height)).save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


async def one(client: httpx.AsyncClient, number: int, chance: random.Random, drawn: Image.Image) -> tuple[float, str | None]:
    """One request of the mix: (seconds, what was wrong)."""
    what = mix(number, some_picture(chance, drawn))
    style = chance.random()
    begin = time.monotonic()
    if style < 0.7:
        answer = await ask(client, what)
        return answer.seconds, None if answer.good else answer.fault or str(answer.status)
    if style < 0.75:
        refused = await client.post(what.path, json=what.body | {"no_such_field": number})
        return 0.0, None if refused.status_code == 400 else f"{refused.status_code} for a wrong body"
    body: dict[str, Any] = what.body | {"stream": True, "partial_images": 2, "progress": True}
    if what.task in ("chat", "words"):
        del body["partial_images"]
    leave_after = chance.randrange(1, 12) if style < 0.85 else None
    async with client.stream("POST", what.path, json=body) as response:
        if response.status_code != 200:
            return time.monotonic() - begin, str(response.status_code)
        pieces = 0
        async for _ in response.aiter_bytes():
            pieces += 1
            if pieces == leave_after:
                break
    return time.monotonic() - begin, None


async def load(server: ServerProcess, client: httpx.AsyncClient, options: argparse.Namespace, curve: Curve) -> None:
    chance, numbers = random.Random(0), itertools.count(1)
    drawn = await client.post("/v1/images/generations", json={"prompt": "a cat and a dog on green", "seed": 1})
    picture = Image.open(io.BytesIO(base64.b64decode(drawn.json()["data"][0]["b64_json"]))).convert("RGB")
    free, under_way = asyncio.Semaphore(options.clients), set[asyncio.Task[None]]()
    end = curve.began + options.hours * 3600
    pause = max(1.0, options.hours * 3600 / SAMPLES)

    async def ask_one(number: int) -> None:
        try:
            seconds, fault = await one(client, number, chance, picture)
        except httpx.HTTPError as error:
            seconds, fault = 0.0, type(error).__name__
        finally:
            free.release()
        curve.requests += 1
        if seconds:
            curve.seconds.append(seconds)
        if fault is not None:
            curve.failures.append(fault)

    async def watch() -> None:
        while True:
            curve.sample(server.memory)
            await asyncio.sleep(pause)

    watching = asyncio.create_task(watch())
    while time.monotonic() < end and server.process.poll() is None:
        await free.acquire()
        task = asyncio.create_task(ask_one(next(numbers)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        if options.rate:
            await asyncio.sleep(60 / options.rate)
    await asyncio.gather(*under_way)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    curve.sample(server.memory)


def plot_curve(curve: Path, out: Path) -> None:
    """Draws the samples of a curve file: megabytes over hours."""
    from matplotlib.figure import Figure

    rows = [line.split(",") for line in curve.read_text(encoding="utf-8").splitlines()[1:]]
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([float(row[0]) / 3600 for row in rows], [int(row[1]) / 1e6 for row in rows], linewidth=1)
    axes.set(xlabel="hours of load", ylabel="resident memory, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


async def measure(options: argparse.Namespace) -> list[Row]:
    server = ServerProcess(*shlex.split(options.serve))
    options.curve.parent.mkdir(parents=True, exist_ok=True)
    with open(options.curve, "w", encoding="utf-8") as file:
        print(COLUMNS, file=file, flush=True)
        try:
            server.until_ready()
            async with httpx.AsyncClient(base_url=server.address, timeout=ANSWER_SECONDS) as client:
                progress(f"{options.hours:g} h at {options.rate:g} requests a minute; the curve: {options.curve}")
                curve = Curve(file)
                await load(server, client, options, curve)
            code = server.stop()
        finally:
            server.process.kill()
    if options.plot is not None:
        plot_curve(options.curve, options.plot)
    last, first = curve.growth()
    more = {
        "growth": last / first - 1, "peak": max(memory for _, memory in curve.samples), "requests": curve.requests,
        "failures": len(curve.failures), "kinds of failure": sorted(set(curve.failures)), "exit code": code,
    }  # fmt: skip
    return [Row("resident memory at the end", "after the first half hour", "bytes", last, first, None, more)]


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments(
        __doc__,
        hours={"type": float, "default": 4.0, "help": "of load"},
        rate={"type": float, "default": 20.0, "help": "requests a minute; 0: as fast as they are answered"},
        clients={"type": int, "default": 4, "help": "requests at a time, at most"},
        curve={"type": Path, "default": Path("out/soak.csv"), "help": "where the samples go"},
        plot={"type": Path, "default": None, "help": "an image of the curve"},
        serve={"type": str, "default": "", "help": "more options of llada-uni serve"},
    )
    options = start(parser, given)
    if options.quick:
        options.hours, options.rate = min(options.hours, 0.005), 0.0
    return run(lambda: asyncio.run(measure(options)), options.json)


if __name__ == "__main__":
    sys.exit(main())
