"""Streams that a client can come back to: what a second reader gets, who may have it, and what bounds it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from llada_uni.results import PartialImage, Progress, TextDelta
from llada_uni.serving.errors import Cancelled, Failed
from llada_uni.serving.http import kept, sse
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.kept import HEADER, KeptStreams
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.http.protocol.errors import ApiError
from tests.serving.conftest import wait_until
from tests.serving.servers import (
    PATIENCE,
    ScriptedService,
    error_of,
    events_of,
    finished,
    live,
    picture,
    until_cancelled,
)

NAME, OTHER = "a-name-of-a-stream", "another-name-of-a-stream"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "seed": 1, "progress": True}
CAT = {"prompt": "a cat", "stream": True, "seed": 1, "progress": True, "partial_images": 2}
STREAMS = "/v1/llada/streams"


def step(done: int) -> Progress:
    return Progress("codes", done, 4, "", (1, 2), (5, -1), (True, False), (0.9, 0.0))


def on_loop(work):
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def until(true):
    while not true():
        await asyncio.sleep(0.005)


# --- over HTTP ---


@contextmanager
def serving(script, **options) -> Iterator[tuple[ScriptedService, httpx.Client]]:
    """A true server of a script, and a client of it."""
    service: Any = ScriptedService(script)  # it stands for a Service
    with live(create_app(service, ServerOptions(**options))) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        yield service, client


def test_who_leaves_comes_back_to_all_of_it():
    """The reader goes after the first words; the job goes on, and a second reader gets everything."""
    go_on = threading.Event()

    def script(job):
        job.emit(TextDelta("a cat"))
        assert go_on.wait(PATIENCE)
        job.check()
        job.emit(TextDelta(" and a dog"))
        job.emit(finished(1))

    with serving(script) as (service, client):
        with client.stream("POST", "/v1/chat/completions", json=HELLO, headers={HEADER: NAME}) as response:
            read = ""
            for text in response.iter_text():
                read += text
                if "a cat" in read:
                    break
        go_on.set()
        again = client.get(f"{STREAMS}/{NAME}")
        assert again.status_code == 200 and again.headers["content-type"].startswith("text/event-stream")
        chunks = [data for _, data in events_of(again.text)]
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]) == "a cat and a dog"
        assert chunks[-1] == "[DONE]"
        assert service.ends == [None]
        assert client.get(f"{STREAMS}/{NAME}").text == again.text  # as long as nobody drops it
        assert client.delete(f"{STREAMS}/{NAME}").json()["deleted"] is True
        gone = client.get(f"{STREAMS}/{NAME}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "stream_not_found")


def test_dropping_ends_the_work():
    def script(job):
        job.emit(TextDelta("a"))
        until_cancelled(job)

    with serving(script) as (service, client):
        with client.stream("POST", "/v1/chat/completions", json=HELLO, headers={HEADER: NAME}) as response:
            next(response.iter_text())
        assert service.ends == []
        assert client.delete(f"{STREAMS}/{NAME}").json()["deleted"] is True
        wait_until(lambda: len(service.ends) == 1, "the job ended")
        assert isinstance(service.ends[0], Cancelled)
        assert client.delete(f"{STREAMS}/{NAME}").status_code == 404


def test_a_name_left_out_ends_with_its_client():
    with serving(lambda job: (job.emit(TextDelta("a")), until_cancelled(job))) as (service, client):
        with client.stream("POST", "/v1/chat/completions", json=HELLO) as response:
            next(response.iter_text())
        wait_until(lambda: len(service.ends) == 1, "the job ended")


def test_progress_is_told_as_it_stands():
    def script(job):
        for done in (1, 2, 3):
            job.emit(step(done))
            while job._mail:  # each is read, so that none is skipped on the way
                time.sleep(0.001)
        job.emit(PartialImage(0, picture().image))
        job.emit(PartialImage(1, picture("blue").image))
        job.emit(picture(seed=1))
        job.emit(finished(1))

    with serving(script) as (_, client):
        first = [data["type"] for _, data in events_of(post(client, CAT).text)]
        assert first.count("llada.progress") == 3 and first.count("image_generation.partial_image") == 2
        events = [data for _, data in events_of(client.get(f"{STREAMS}/{NAME}").text)]
        assert [data["type"] for data in events] == [
            "llada.progress", "image_generation.partial_image", "image_generation.completed"
        ]  # fmt: skip
        assert events[0]["done"] == 3 and events[1]["partial_image_index"] == 1


def post(client, body, name=NAME, path="/v1/images/generations"):
    return client.post(path, json=body, headers={HEADER: name})


def test_a_failure_is_kept_as_well():
    def fails_at_once(job):
        raise Failed("the server failed on this request")

    def fails_later(job):
        job.emit(TextDelta("a"))
        raise Failed("the server failed on this request")

    for script, status in ((fails_at_once, 500), (fails_later, 200)):
        with serving(script) as (_, client):
            first = post(client, HELLO, path="/v1/chat/completions")
            again = client.get(f"{STREAMS}/{NAME}")
            assert (first.status_code, again.status_code) == (status, status)
            assert "the server failed on this request" in again.text and again.text == first.text


def test_names():
    with serving(lambda job: job.emit(finished(1))) as (_, client):
        for name in ("short", "a" * 65, "with a space in it", "a/../../path-of-files"):
            refused = post(client, HELLO, name, "/v1/chat/completions")
            assert refused.status_code == 400
            assert error_of(refused)["message"] == f"the header {HEADER} must be 16 to 64 letters, digits, _ or -"
            assert error_of(refused)["param"] == HEADER
        assert post(client, HELLO, path="/v1/chat/completions").status_code == 200
        assert post(client, HELLO, path="/v1/chat/completions").status_code == 409
        for name in ("short", "a" * 65, "%00", "..%2f..%2fready", OTHER):
            assert client.get(f"{STREAMS}/{name}").status_code == 404
            assert client.delete(f"{STREAMS}/{name}").status_code == 404


def test_a_stream_belongs_to_its_key():
    with serving(lambda job: job.emit(finished(1)), api_keys=("one", "two")) as (_, client):
        mine, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
        client.post("/v1/chat/completions", json=HELLO, headers={HEADER: NAME, **mine})
        assert client.get(f"{STREAMS}/{NAME}", headers=other).status_code == 404
        assert client.delete(f"{STREAMS}/{NAME}", headers=other).status_code == 404
        assert client.get(f"{STREAMS}/{NAME}").status_code == 401
        assert client.get(f"{STREAMS}/{NAME}", headers=mine).status_code == 200


# --- bounds ---


class Source:
    """Messages that a test makes; `closed` once nobody wants more."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = False

    async def messages(self):
        try:
            while (message := await self.queue.get()) is not None:
                yield message
        finally:
            self.closed = True

    def say(self, *messages: bytes | None) -> None:
        for message in messages:
            self.queue.put_nowait(message)


def keep(streams: KeptStreams, source: Source, name: str = NAME, owner: str = "me"):
    return streams.keep(owner, name, source.messages(), lambda error: f"failed: {error}".encode())


def test_a_stream_that_nobody_reads_is_ended(monkeypatch):
    monkeypatch.setattr(kept, "ALONE_SECONDS", 0.05)

    async def work():
        streams, source = KeptStreams(), Source()
        reader = keep(streams, source)
        source.say(b"a", b"b")
        assert await anext(reader) == b"a"
        await asyncio.sleep(0.15)  # read all the time: it goes on
        assert not source.closed
        await reader.aclose()
        await until(lambda: source.closed)
        assert len(streams) == 0

    on_loop(work())


def test_an_ended_stream_is_forgotten_after_a_while(monkeypatch):
    monkeypatch.setattr(kept, "AFTER_SECONDS", 0.05)

    async def work():
        streams, source = KeptStreams(), Source()
        source.say(b"a", None)
        assert [message async for message in keep(streams, source)] == [b"a"]
        await until(lambda: len(streams) == 0)

    on_loop(work())


def test_what_is_too_large_goes_to_its_reader_alone(monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 10)

    async def work():
        streams, source = KeptStreams(), Source()
        reader = keep(streams, source)
        stream = streams.find("me", NAME)
        source.say(b"12345", b"67890", *[b"more"] * 5, None)
        assert await anext(reader) == b"12345"
        await until(lambda: len(streams) == 0)
        assert stream.bytes <= 14  # and not all: the rest waits until there is room
        assert [message async for message in reader] == [b"67890", *[b"more"] * 5]
        source = Source()
        reader = keep(streams, source)
        source.say(b"12345", b"67890")
        assert await anext(reader) == b"12345"
        await reader.aclose()
        source.say(b"more", b"more")
        await until(lambda: source.closed and len(streams) == 0)

    on_loop(work())


def test_ended_streams_make_room(monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES_OF_ALL", 10)
    monkeypatch.setattr(kept, "MOST_OF_OWNER", 2)

    async def work():
        streams, sources = KeptStreams(), [Source() for _ in range(4)]
        sources[0].say(b"123456", None)
        assert [message async for message in keep(streams, sources[0], "a" * 16)] == [b"123456"]
        running = keep(streams, sources[1], "b" * 16)
        sources[1].say(b"123456")
        assert await anext(running) == b"123456"
        with pytest.raises(ApiError, match="no such stream"):
            streams.find("me", "a" * 16)
        keep(streams, sources[2], "c" * 16)
        plain = keep(streams, sources[3], "d" * 16)  # two run: no place, so it lives as long as its connection
        sources[3].say(b"x")
        assert await anext(plain) == b"x" and len(streams) == 2
        await plain.aclose()
        assert sources[3].closed
        keep(streams, Source(), "e" * 16, "another owner")
        assert len(streams) == 3
        for name in ("b" * 16, "c" * 16):
            streams.find("me", name).drop()
        await until(lambda: sources[1].closed)
        await running.aclose()

    on_loop(work())


def test_pings_while_nothing_comes(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)

    async def work():
        streams, source = KeptStreams(), Source()
        reader = keep(streams, source)
        assert await anext(reader) == sse.PING
        source.say(sse.PING, b"a")
        while (message := await anext(reader)) == sse.PING:
            pass
        assert message == b"a"
        await reader.aclose()
        streams.find("me", NAME).drop()
        await until(lambda: source.closed)

    on_loop(work())
