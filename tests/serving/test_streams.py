"""Streams: what is sent and in which order, pings, errors before and after the first event, clients that go away."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.results import PartialImage, Progress, TextDelta
from llada_uni.serving.errors import Failed, QueueFull
from llada_uni.serving.http import sse
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.protocol.progress import ThinkingEvent
from llada_uni.serving.http.routes import bodies, pictures
from tests.serving.servers import (
    PATIENCE,
    ScriptedService,
    ask,
    data_uri,
    error_of,
    events_of,
    finished,
    live,
    one_picture,
    opened,
    picture,
    say,
    scripted,
    until_cancelled,
    wait_for,
    words,
)

CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"
HELLO = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "seed": 1}
CAT = {"prompt": "a cat", "stream": True, "seed": 1}
CODES = Progress("codes", 1, 2, "", (1, 2), (5, -1), (True, False), (0.98765, 0.0))
Gray = Image.new("RGB", (8, 4), "gray")


def stream(script, path, body):
    response = ask(scripted(script)[1], path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return events_of(response.text)


def deltas(events, index=0):
    chunks = [data for _, data in events if data != "[DONE]"]
    return [c["delta"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]


# --- chat ---


def test_chunks_of_words():
    events = stream(words, CHAT, HELLO)
    assert deltas(events) == [{"role": "assistant", "content": ""}, {"content": "a cat"}, {"content": " and a dog"}, {}]
    chunks = [data for _, data in events[:-1]]
    assert events[-1][1] == "[DONE]"
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["seed"] == 1 for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0].get("finish_reason") for chunk in chunks] == [None, None, None, "stop"]
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_comes_last_when_asked_for():
    events = stream(words, CHAT, HELLO | {"stream_options": {"include_usage": True}, "n": 2})
    last = events[-2][1]
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 14, "total_tokens": 19}


def test_n_answers_are_told_apart_by_their_index():
    events = stream(words, CHAT, HELLO | {"n": 3})
    for index in range(3):
        assert "".join(delta.get("content", "") for delta in deltas(events, index)) == "a cat and a dog"


def test_words_and_pictures_in_order():
    script = say(TextDelta("once"), PartialImage(0, Gray), CODES, picture("red"), TextDelta("then"), finished())
    body = HELLO | {"modalities": ["text", "image"], "progress": True, "partial_images": 1}
    events = stream(script, CHAT, body)
    content = [delta["content"] for delta in deltas(events) if delta.get("content")]
    assert content[0] == "once" and content[2] == "then"
    assert opened(content[1][0]["image_url"]["url"]).getpixel((0, 0)) == (255, 0, 0)
    named = {name: data for name, data in events if name}
    assert opened(named["llada.partial_image"]["b64_json"]).getpixel((0, 0)) == (128, 128, 128)
    assert named["llada.progress"]["codes"] == [5, -1] and named["llada.progress"]["choices"] == []


def test_thoughts_are_apart_from_the_answer():
    events = stream(say(TextDelta("hm", reasoning=True), TextDelta("yes"), finished()), CHAT, HELLO)
    assert deltas(events)[1:3] == [{"reasoning_content": "hm"}, {"content": "yes"}]


# --- pictures ---


def test_drafts_then_the_picture():
    script = say(PartialImage(0, Gray), CODES, PartialImage(1, Gray), picture("red", seed=1), finished(1))
    events = stream(script, DRAW, CAT | {"partial_images": 2})
    kinds = ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [name for name, _ in events] == [data["type"] for _, data in events] == kinds
    assert [data.get("partial_image_index") for _, data in events] == [0, 1, None]
    last = events[-1][1]
    assert opened(last["b64_json"]).getpixel((0, 0)) == (255, 0, 0) and last["seed"] == 1 and last["size"] == "8x4"
    counted = {name: count for name, count in last["usage"].items() if isinstance(count, int)}
    assert counted == {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    assert last["usage"]["input_tokens_details"] == {"text_tokens": 5, "image_tokens": 0}


def test_edits_have_names_of_their_own():
    events = stream(one_picture, "/v1/images/edits", CAT | {"image": data_uri(Gray)})
    assert [name for name, _ in events] == ["image_edit.completed"]


def test_progress_and_thoughts_for_those_who_ask():
    # Two drafts in a row may become one, so something stands between them.
    drafts = (CODES, PartialImage(0, Gray), Progress("decode", 3, 8))
    script = say(TextDelta("a cat", reasoning=True), *drafts, picture(), finished())
    events = stream(script, DRAW, CAT | {"progress": True, "thinking": True})
    assert events[0][0] == "llada.thinking" and events[0][1]["delta"] == "a cat"
    progress = [data for name, data in events if name == "llada.progress"]
    codes = {key: progress[0][key] for key in ("stage", "done", "total", "codes", "settled", "confidences", "grid", "index")}
    assert codes == {
        "stage": "codes", "done": 1, "total": 2, "codes": [5, -1], "settled": [True, False],
        "confidences": [0.988, 0.0], "grid": [1, 2], "index": 0,
    }  # fmt: skip
    assert progress[-1]["stage"] == "decode" and progress[-1]["codes"] is None
    assert not any(name.startswith("llada") for name, _ in stream(script, DRAW, CAT))


def test_n_pictures_are_told_apart_by_their_index():
    events = stream(one_picture, DRAW, CAT | {"n": 3})
    assert sorted((data["index"], data["seed"]) for _, data in events) == [(0, 1), (1, 2), (2, 3)]


# --- what goes wrong ---


@pytest.mark.parametrize(("failure", "status"), [(UserError("too long"), 400), (QueueFull("full", 3), 429)])
def test_what_fails_at_once_is_an_ordinary_error(failure, status):
    def script(job):
        raise failure

    _, client = scripted(script)
    for path, body in ((CHAT, HELLO), (DRAW, CAT)):
        response = ask(client, path, json=body)
        assert response.status_code == status and error_of(response)["message"] == str(failure)


def test_an_error_on_the_way_is_an_event_and_the_end():
    has_read = threading.Event()

    def script(job):
        job.emit(TextDelta("a cat"))
        assert has_read.wait(PATIENCE)
        raise Failed("something broke")

    with live(create_app(ScriptedService(script))) as base, httpx.stream("POST", base + CHAT, json=HELLO) as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if "a cat" in text:
                has_read.set()
    name, data = events_of(text)[-1]
    assert response.status_code == 200 and name == "error"
    assert data["error"]["message"] == "something broke" and data["error"]["type"] == "server_error"


def test_one_failing_picture_ends_the_others():
    def script(job):
        if job.request.seed == 2:
            raise UserError("no")
        until_cancelled(job)

    service, client = scripted(script)
    assert ask(client, DRAW, json=CAT | {"n": 3}).status_code == 400
    wait_for(lambda: len(service.ends) == 3, "the other pictures to end")


def test_pings_while_nothing_comes(monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.01)
    pinged = threading.Event()

    def script(job):
        assert pinged.wait(PATIENCE)
        words(job)

    with live(create_app(ScriptedService(script))) as base, httpx.stream("POST", base + CHAT, json=HELLO) as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if text.startswith(": ping\n\n"):
                pinged.set()
    assert deltas(events_of(text))[1] == {"content": "a cat"} and text.endswith("data: [DONE]\n\n")


# --- clients that go away ---


def test_a_client_that_leaves_a_stream_ends_its_jobs():
    def script(job):
        job.emit(TextDelta("a cat"))
        until_cancelled(job)

    service = ScriptedService(script)
    with live(create_app(service)) as base:
        with httpx.stream("POST", base + CHAT, json=HELLO | {"n": 2}, timeout=PATIENCE) as response:
            assert next(response.iter_lines()).startswith("data: ")
        wait_for(lambda: len(service.ends) == 2, "both jobs to end")
    assert {type(end).__name__ for end in service.ends} == {"Cancelled"}


@pytest.mark.parametrize("body", [{"prompt": "a cat"}, CAT], ids=["at-once", "stream"])
def test_a_client_that_leaves_before_any_answer_ends_its_jobs(body):
    service = ScriptedService(until_cancelled)
    with live(create_app(service)) as base:

        async def leave():
            async with httpx.AsyncClient() as client:
                asking = asyncio.ensure_future(client.post(base + DRAW, json=body, timeout=PATIENCE))
                while not service.jobs:
                    await asyncio.sleep(0.01)
                asking.cancel()
                await asyncio.wait({asking})

        asyncio.run(leave())
        wait_for(lambda: len(service.ends) == 1, "the job to end")
    assert type(service.ends[0]).__name__ == "Cancelled"


# --- the event loop ---


def test_heavy_work_is_done_in_threads(monkeypatch):
    threads = set()

    def recorded(module, name):
        real = getattr(module, name)

        def run(*args):
            threads.add((name, threading.current_thread() is threading.main_thread()))
            return real(*args)

        monkeypatch.setattr(module, name, run)

    recorded(bodies, "parse_json")
    recorded(pictures, "_encode")
    _, client = scripted(one_picture)
    assert ask(client, DRAW, json={"prompt": "a cat"}).status_code == 200
    assert threads == {("parse_json", False), ("_encode", False)}


def test_what_is_sent_is_one_line_of_json():
    event = sse.message(ThinkingEvent(index=0, delta="two\nlines"))
    assert event.startswith(b"data: {") and event.endswith(b"}\n\n") and event.count(b"\n") == 2
    assert json.loads(event[len(b"data: ") :])["delta"] == "two\nlines"
