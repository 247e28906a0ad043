"""What OpenAI's typed clients need of /v1/chat/completions: every key, pictures beside the words, fields at fault by name."""

from __future__ import annotations

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.results import TextDelta
from llada_uni.serving.http.routes.chat import EMPTY
from tests.serving.servers import ask, data_uri, error_of, events_of, finished, opened, picture, say, scripted, words

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
STORY = say(TextDelta("once"), picture("red"), TextDelta("then"), picture("blue"), finished(reason="frames"))
BESIDE = {"modalities": ["text", "image"], "images_in": "images"}


def post(script=words, **body):
    service, client = scripted(script)
    return service, ask(client, PATH, json={"messages": HELLO} | body)


def chunks_of(script, **body):
    response = post(script, stream=True, **body)[1]
    assert response.status_code == 200, response.text
    return [data for _, data in events_of(response.text) if data != "[DONE]"]


def test_every_chunk_has_every_key():
    body = dict(progress=True, partial_images=1, modalities=["text", "image"], stream_options={"include_usage": True})
    for chunk in chunks_of(STORY, **body):
        assert {"id", "object", "created", "model", "choices"} <= set(chunk)
        for choice in chunk["choices"]:
            assert set(choice) == {"index", "delta", "finish_reason", "logprobs"} and choice["logprobs"] is None
        if "type" not in chunk:
            assert (chunk["usage"] is None) == bool(chunk["choices"])


def test_an_answer_with_all_the_pictures_it_may_have_is_whole():
    assert post(STORY, modalities=["text", "image"])[1].json()["choices"][0]["finish_reason"] == "stop"


def test_pictures_beside_the_words():
    message = post(STORY, **BESIDE)[1].json()["choices"][0]["message"]
    assert message["content"] == "oncethen"
    assert [(image["index"], image["offset"]) for image in message["images"]] == [(0, 4), (1, 8)]
    assert opened(message["images"][1]["image_url"]["url"]).getpixel((0, 0)) == (0, 0, 255)
    streamed = [chunk["choices"][0]["delta"] for chunk in chunks_of(STORY, **BESIDE)]
    assert "".join(delta.get("content", "") for delta in streamed) == "oncethen"
    assert [image for delta in streamed for image in delta.get("images", [])] == message["images"]


def test_pictures_beside_the_words_can_be_sent_back():
    message = post(STORY, **BESIDE)[1].json()["choices"][0]["message"]
    service, response = post(messages=[*HELLO, message, *HELLO])
    assert response.status_code == 200, response.text
    parts = service.requests[0].messages[1]["content"]
    assert [part if isinstance(part, str) else part.getpixel((0, 0)) for part in parts] == [
        "once", (255, 0, 0), "then", (0, 0, 255),
    ]  # fmt: skip


def test_pictures_beside_the_words_are_for_answers_with_pictures():
    assert error_of(post(images_in="images")[1])["param"] == "images_in"
    part = {"type": "image_url", "image_url": {"url": data_uri(Image.new("RGB", (2, 2)))}}
    error = error_of(post(messages=[{"role": "user", "content": "x", "images": [part]}])[1])
    assert error["param"] == "messages[0].images"


@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_answer_says_so(stream):
    script = say(TextDelta(" "), finished())
    if stream:
        assert chunks_of(script)[-1]["choices"][0]["delta"]["notices"] == [EMPTY]
    else:
        assert post(script)[1].json()["choices"][0]["message"]["notices"] == [EMPTY]
    assert "notices" not in post()[1].json()["choices"][0]["message"]


def test_an_answer_without_words_may_be_sent_back():
    service, response = post(messages=[*HELLO, {"role": "assistant", "content": None}, *HELLO])
    assert response.status_code == 200 and service.requests[0].messages[1]["content"] == [""]
    error = error_of(post(messages=[{"role": "user", "content": None}])[1])
    assert error["param"] == "messages[0].content" and "not null" in error["message"]


AT_FAULT = [
    ("max_tokens is 5000; allowed: 4096", "max_tokens"),
    ("the seed must be a whole number", "seed"),
    ("the height must be a multiple of 32 pixels, not 5", "size"),
    ("the request has 30000 characters of text; allowed: 20000", "messages"),
    ("a user's message needs words: it has none", "messages"),
]


@pytest.mark.parametrize(("message", "param"), AT_FAULT, ids=[row[1] for row in AT_FAULT])
@pytest.mark.parametrize("late", [False, True])
def test_every_refusal_names_a_field(message, param, late):
    def script(job):
        if late:
            job.emit(TextDelta("a"))
        raise UserError(message)

    response = post(script, max_tokens=9, seed=1, model="scripted", stream=late)[1]
    if late:
        assert events_of(response.text)[-1][1]["error"]["param"] == param
    else:
        assert error_of(response)["param"] == param
