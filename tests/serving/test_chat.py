"""POST /v1/chat/completions: how bodies become tasks, outcomes become answers, and what is refused, in which words."""

from __future__ import annotations

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.generation.params import Sprint
from llada_uni.requests import Chat, Story
from llada_uni.results import TextDelta
from llada_uni.serving.errors import Draining, Failed, QueueFull, TimedOut
from llada_uni.serving.scheduler.limits import Limits
from tests.serving.servers import (
    ask,
    data_uri,
    error_of,
    finished,
    opened,
    picture,
    say,
    scripted,
    until_cancelled,
    wait_for,
    words,
)

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "what is at the top left?"}]


def post(script=words, limits=None, **body):
    service, client = scripted(script, limits)
    return service, ask(client, PATH, json={"messages": HELLO} | body)


def test_answer_in_words():
    service, response = post(seed=3, model="scripted")
    answer = response.json()
    assert response.status_code == 200 and answer["object"] == "chat.completion"
    choice = answer["choices"][0]
    assert choice["message"]["content"] == "a cat and a dog" and choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "stop" and answer["seed"] == 3
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    assert answer["model"] == "scripted" and answer["system_fingerprint"].startswith("scripted-")
    messages = [{"role": "user", "content": [HELLO[0]["content"]]}]
    assert service.requests[0] == Chat(messages=messages, modalities=("text",), seed=3)


def test_every_setting_reaches_the_task():
    service, _ = post(
        max_completion_tokens=9, text_steps=4, temperature=0.5, top_p=0.9, top_k=7, stop="end", seed=1, threshold=0.8,
        rule="adaptive", confidence="margin", sprint={"r_text": 1.0, "r_img": 0.8}, block_length=16,
    )  # fmt: skip
    asked = service.requests[0]
    assert asked == Chat(
        messages=asked.messages, modalities=("text",), max_tokens=9, text_steps=4, stop="end", seed=1, threshold=0.8,
        temperature=0.5, top_k=7, top_p=0.9, rule="adaptive", confidence="margin", block_length=16,
        sprint=Sprint(r_text=1.0, r_img=0.8),
    )  # fmt: skip


def test_turns_keep_their_order_roles_and_pictures():
    red, blue = Image.new("RGB", (3, 2), "red"), Image.new("RGB", (2, 2), "blue")
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [part(red), {"type": "text", "text": "what is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}, part(blue)], "reasoning_content": None},
        {"role": "user", "content": "and that?", "name": "eve"},
    ]
    service, response = post(messages=messages)
    assert response.status_code == 200, response.text
    taken = service.requests[0].messages
    assert [message["role"] for message in taken] == ["system", "user", "assistant", "user"]
    contents = [message["content"] for message in taken]
    assert contents[0] == ["be brief"] and contents[3] == ["and that?"]
    assert contents[1][0].size == (3, 2) and contents[1][1] == "what is this?"
    assert contents[2][0] == "red" and contents[2][1].getpixel((0, 0)) == (0, 0, 255)


def part(image):
    return {"type": "image_url", "image_url": {"url": data_uri(image), "detail": "low"}}


def test_n_answers_have_seeds_one_after_the_other():
    def script(job):
        job.emit(TextDelta(f"seed {job.request.seed}"))
        job.emit(finished(job.request.seed))

    service, response = post(script, n=3, seed=10)
    answer = response.json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["seed 10", "seed 11", "seed 12"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 21, "total_tokens": 26}
    assert len(service.jobs) == 3


def test_words_and_pictures_come_in_order():
    script = say(TextDelta("once"), picture("red"), TextDelta("then"), picture("blue"), finished(reason="frames"))
    service, response = post(script, modalities=["text", "image"], size="64x32", max_frames=2, text_scale=2.0)
    choice = response.json()["choices"][0]
    content = choice["message"]["content"]
    assert [item["type"] for item in content] == ["text", "image_url", "text", "image_url"]
    assert content[0]["text"] == "once" and content[2]["text"] == "then"
    assert opened(content[3]["image_url"]["url"]).getpixel((0, 0)) == (0, 0, 255)
    assert choice["finish_reason"] == "stop"
    asked = service.requests[0]
    assert isinstance(asked, Story)
    assert (asked.width, asked.height, asked.max_frames, asked.text_scale) == (64, 32, 2, 2.0)


def test_thoughts_are_apart_from_the_answer():
    script = say(TextDelta("hm", reasoning=True), TextDelta("yes"), finished())
    message = post(script)[1].json()["choices"][0]["message"]
    assert message["content"] == "yes" and message["reasoning_content"] == "hm"


def test_neutral_values_of_what_is_not_supported_pass():
    body = dict(
        tools=[], tool_choice="auto", logprobs=False, top_logprobs=None, frequency_penalty=0, presence_penalty=0.0,
        logit_bias={}, audio=None, response_format={"type": "text"}, store=False, user="me", metadata={"a": "b"}, stop=None,
    )  # fmt: skip
    assert post(**body)[1].status_code == 200


REFUSED = [
    ({"messages": []}, "messages", "messages must have at least 1 item, not 0"),
    ({"messages": None}, "messages", "messages must be a list, not null"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "'user', 'assistant' or 'tool'"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "must be a string or a list of parts, not null"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "a string or a list of parts"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]", '"type": "text"'),
    ({"temperature": 101}, "temperature", "temperature must be less than or equal to 100, not 101"),
    ({"temperature": "hot"}, "temperature", 'temperature must be a number, not "hot"'),
    ({"top_p": 0}, "top_p", "must be greater than 0"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 9}, "n", "n is 9; this server allows 1 to 8"),
    ({"n": "2"}, "n", 'n must be a whole number, not "2"'),
    ({"seed": -1}, "seed", "greater than or equal to 0"),
    ({"seed": 2**63 - 1, "n": 2}, "seed", "no room for n results"),
    ({"seed": 10**30}, "seed", "seed must be"),
    ({"stop": list("abcdefghijklmnopq")}, "stop", "at most 16 items"),
    ({"stop": [""]}, "stop", "empty"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "is for streams"),
    ({"progress": True}, "progress", "is for streams"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "differ"),
    ({"modalities": ["text", "audio"]}, "modalities[1]", "'text' or 'image'"),
    ({"modalities": ["image"]}, "modalities", '["text", "image"]'),
    ({"max_frames": 2}, "max_frames", "answers with images"),
    ({"image_temperature": 1}, "image_temperature", "answers with images"),
    ({"steps": 4}, "steps", "steps is no field any more: use image_steps (image codes) or text_steps (text)"),
    ({"size": "12", "modalities": ["text", "image"]}, "size", '"WIDTHxHEIGHT"'),
    ({"tempreature": 1}, "tempreature", "did you mean 'temperature'?"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "is missing"),
    ({"functions": [{"name": "f"}]}, "functions", "give tools and tool_choice instead"),
    ({"logprobs": True}, "logprobs", "is not supported"),
    ({"audio": {"voice": "x"}}, "audio", "is not supported"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "is not supported"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "'text', 'json_object' or 'json_schema'"),
    ({"sprint": {"r": 2}}, "sprint.r", "sprint.r must be a number from 0 to 1, not 2"),
    ({"sprint": {"q": 1}}, "sprint", "unknown setting 'q'"),
]


@pytest.mark.parametrize(("body", "param", "sentence"), REFUSED, ids=[f"{row[1]}-{i}" for i, row in enumerate(REFUSED)])
def test_refused_in_words(body, param, sentence):
    service, response = post(**body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param and sentence in error["message"]
    assert error["type"] == "invalid_request_error" and not service.jobs


def test_unknown_model():
    response = post(model="gpt-4")[1]
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found" and "'scripted'" in error_of(response)["message"]


def test_a_broken_picture_is_named():
    content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    error = error_of(post(messages=[{"role": "user", "content": content}])[1])
    assert error["param"] == "messages[0].content[1].image_url" and "no picture" in error["message"]


def test_more_pictures_than_allowed_are_not_even_opened():
    content = [{"type": "text", "text": "x"}] + 3 * [{"type": "image_url", "image_url": {"url": "data:broken"}}]
    response = post(limits=Limits(max_pictures=2), messages=[{"role": "user", "content": content}])[1]
    assert response.status_code == 400 and "has 3 pictures; this server allows 2" in error_of(response)["message"]


FAILURES = [
    (UserError("the prompt is too long"), 400, "invalid_request_error", None),
    (QueueFull("128 requests wait already", 5), 429, "rate_limit_error", "5"),
    (Draining("the service is stopping"), 503, "server_error", None),
    (TimedOut("the request took longer than 3 seconds"), 504, "server_error", None),
    (Failed("something broke"), 500, "server_error", None),
]


@pytest.mark.parametrize(("failure", "status", "kind", "after"), FAILURES, ids=lambda value: type(value).__name__)
def test_failures_have_their_status(failure, status, kind, after):
    def script(job):
        raise failure

    response = post(script)[1]
    assert response.status_code == status and response.headers.get("retry-after") == after
    assert error_of(response)["type"] == kind and error_of(response)["message"] == str(failure)


def test_an_unexpected_failure_tells_nothing():
    def script(job):
        raise RuntimeError("secret in /home/someone/file.py")

    response = post(script)[1]
    assert response.status_code == 500 and "secret" not in response.text and error_of(response)["type"] == "server_error"


def test_one_failing_answer_ends_the_others():
    def script(job):
        if job.request.seed == 2:
            raise UserError("no")
        until_cancelled(job)

    service, response = post(script, n=3, seed=0)
    assert response.status_code == 400 and len(service.jobs) == 3
    wait_for(lambda: len(service.ends) == 3, "the other answers to end")
    assert sorted(type(end).__name__ for end in service.ends) == ["Cancelled", "Cancelled", "UserError"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_queue_that_has_no_room_for_all_answers_takes_none(stream):
    service, client = scripted(until_cancelled)
    submit = service.submit

    def two_places(request, owner="", partial_images=0):
        if len(service.jobs) == 2:
            raise QueueFull("2 requests wait already", 1)
        return submit(request, owner)

    service.submit = two_places
    response = ask(client, PATH, json={"messages": HELLO, "n": 3, "stream": stream})
    assert response.status_code == 429 and response.headers["retry-after"] == "1"
    wait_for(lambda: len(service.ends) == 2, "the two that had a place to end")


BROKEN = [
    (b'{"messages": ', "the body is not JSON"),
    (b'{"temperature": NaN}', "NaN"),
    (b'{"temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}', "temperature must be"),
    (b"[" * 200_000, "too many values"),
    (b"[" * 50_000, "nested too deep"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "too many digits"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "half a character"),
    (b'{"messages": "\xff"}', "not UTF-8"),
    (b"[]", "must be a JSON object"),
    (b"", "must be a JSON object"),
    (b"null", "must be a JSON object"),
]


@pytest.mark.parametrize(("body", "sentence"), BROKEN, ids=[row[1] for row in BROKEN])
def test_broken_bodies(body, sentence):
    _, client = scripted(words)
    response = ask(client, PATH, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400 and sentence in error_of(response)["message"]


def test_wrong_content_type():
    _, client = scripted(words)
    response = ask(client, PATH, data={"messages": "x"})
    assert response.status_code == 415 and "application/json" in error_of(response)["message"]
