"""Every answer and every event validates against OpenAI's own types, strictly: keys, kinds and literals."""

from __future__ import annotations

import pytest
from openai.types import ImagesResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.image_edit_stream_event import ImageEditStreamEvent
from openai.types.image_gen_stream_event import ImageGenStreamEvent
from openai.types.responses import Response, ResponseStreamEvent
from PIL import Image
from pydantic import TypeAdapter

from llada_uni.errors import UserError
from llada_uni.results import PartialImage, Progress, TextDelta
from tests.serving.servers import ask, data_uri, events_of, finished, picture, say, scripted

HELLO = [{"role": "user", "content": "hello"}]
CODES = Progress("codes", 1, 2, "", (1, 2), (5, -1), (True, False), (0.9, 0.0))
GRAY = Image.new("RGB", (8, 4), "gray")
WORDS = say(TextDelta("a cat"), TextDelta(" and a dog"), finished())
STORY = say(
    TextDelta("once"), CODES, PartialImage(0, GRAY), picture("red"), TextDelta("then"), CODES, picture("blue"),
    finished(reason="frames"),
)  # fmt: skip
DRAWN = say(TextDelta("hm", reasoning=True), CODES, PartialImage(0, GRAY), picture("red"), finished())
TOOL = {"type": "image_generation", "output_format": "webp", "size": "64x32"}


def valid(kind, value):
    TypeAdapter(kind).validate_python(value, strict=True)


def answers(path, script, **body):
    """The answer at once, and the events of a stream."""
    at_once = ask(scripted(script)[1], path, json=body)
    assert at_once.status_code == 200, at_once.text
    streamed = ask(scripted(script)[1], path, json=body | {"stream": True})
    return at_once.json(), [data for _, data in events_of(streamed.text) if data != "[DONE]"]


CHATS = [
    (WORDS, {}),
    (WORDS, {"n": 2, "stream_options": None}),
    (STORY, {"modalities": ["text", "image"], "images_in": "images"}),
    (say(finished(reason="length")), {}),
]


@pytest.mark.parametrize(("script", "body"), CHATS)
def test_chat(script, body):
    answer, chunks = answers("/v1/chat/completions", script, messages=HELLO, **body)
    valid(ChatCompletion, answer)
    for chunk in chunks:
        valid(ChatCompletionChunk, chunk)


def test_chat_with_progress_and_usage():
    body = {"messages": HELLO, "stream": True, "progress": True, "partial_images": 1, "stream_options": {"include_usage": True}}
    story = body | {"modalities": ["text", "image"], "images_in": "images"}
    events = events_of(ask(scripted(STORY)[1], "/v1/chat/completions", json=story).text)
    for _, data in events[:-1]:
        valid(ChatCompletionChunk, data)


@pytest.mark.parametrize("body", [{}, {"n": 2, "output_format": "webp"}, {"thinking": True}])
def test_images(body):
    answer, events = answers("/v1/images/generations", DRAWN, prompt="a cat", **body)
    valid(ImagesResponse, answer)
    for event in events:
        valid(ImageGenStreamEvent, event)


def test_edits():
    answer, events = answers("/v1/images/edits", say(picture(), finished()), prompt="a cat", image=data_uri(GRAY))
    valid(ImagesResponse, answer)
    for event in events:
        valid(ImageEditStreamEvent, event)


RESPONSES = [
    (WORDS, {}),
    (WORDS, {"instructions": "be brief", "metadata": {"a": "b"}, "max_output_tokens": 9, "temperature": 0.5, "user": "me"}),
    (STORY, {"tools": [TOOL]}),
    (DRAWN, {"tools": [TOOL], "tool_choice": "required", "thinking": True}),
    (DRAWN, {"tools": [TOOL], "tool_choice": {"type": "image_generation"}}),
    (say(TextDelta("cut"), finished(reason="length")), {}),
    (say(finished()), {}),
]


@pytest.mark.parametrize(("script", "body"), RESPONSES)
def test_responses(script, body):
    answer, events = answers("/v1/responses", script, input="hello", **body)
    valid(Response, answer)
    for event in events:
        valid(ResponseStreamEvent, event)


def test_a_response_that_fails_on_the_way():
    def script(job):
        job.emit(TextDelta("a"))
        raise UserError("no")

    events = events_of(ask(scripted(script)[1], "/v1/responses", json={"input": "x", "stream": True}).text)
    for _, data in events:
        valid(ResponseStreamEvent, data)
    assert [name for name, _ in events][-2:] == ["error", "response.failed"]


def test_models():
    _, client = scripted(WORDS)
    for model in ask(client, "/v1/models", "GET").json()["data"]:
        valid(Model, model)
