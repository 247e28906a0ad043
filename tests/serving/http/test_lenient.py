"""--lenient: unknown and unsupported fields are left out with a warning, wrong values are still refused."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.serving.servers import ask, data_uri, error_of, events_of, one_picture, png, scripted, words

CHAT, DRAW, EDIT, RESPONSES = "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/v1/responses"
HELLO = [{"role": "user", "content": "hello"}]
RED = Image.new("RGB", (4, 4), "red")
IMAGES = {"type": "image_generation"}
CASES = [
    (CHAT, {"messages": HELLO, "top_a": 1, "audio": {"voice": "x"}}, ["audio is not supported", "top_a is unknown"]),
    (CHAT, {"messages": [HELLO[0] | {"cache": 1}]}, ["messages[0].cache is unknown"]),
    (DRAW, {"prompt": "a cat", "style": "vivid", "response_format": "url"}, ["response_format is not", "style is unknown"]),
    (EDIT, {"prompt": "a cat", "image": data_uri(RED), "style": "vivid"}, ["style is unknown"]),
    (RESPONSES, {"input": "x", "store": True, "tools": [IMAGES | {"input_image_mask": {}}]}, ["store is", "tools is"]),
    (RESPONSES, {"input": "x", "tools": [{"type": "web_search"}]}, ["tools is not supported"]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "warnings"), CASES)
def test_fields_are_left_out_with_a_warning(path, body, warnings):
    script = one_picture if path in (DRAW, EDIT) else words
    answer = ask(scripted(script, lenient=True)[1], path, json=body)
    assert answer.status_code == 200, answer.text
    said = answer.json()["warnings"]
    assert len(said) == len(warnings) and all(line.startswith(start) for line, start in zip(said, warnings, strict=True))
    assert ask(scripted(script)[1], path, json=body).status_code == 400
    events = [data for _, data in events_of(ask(scripted(script, lenient=True)[1], path, json=body | {"stream": True}).text)]
    told = [event["response"] if path == RESPONSES else event for event in events if "response" in event or path != RESPONSES]
    assert told[0]["warnings"] == said


def test_forms():
    request = {"data": {"prompt": "a cat", "style": "vivid"}, "files": [("image", ("a.png", png(RED), "image/png"))]}
    answer = ask(scripted(one_picture, lenient=True)[1], EDIT, **request)
    assert answer.json()["warnings"] == ["style is unknown here and was left out"]


@pytest.mark.parametrize("body", [{"temperature": "hot"}, {"temperature": "hot", "top_a": 1}, {"messages": []}])
def test_wrong_values_are_refused(body):
    answer = ask(scripted(words, lenient=True)[1], CHAT, json={"messages": HELLO} | body)
    assert answer.status_code == 400 and error_of(answer)["param"] in body


def test_an_answer_without_warnings_has_none():
    assert "warnings" not in ask(scripted(words, lenient=True)[1], CHAT, json={"messages": HELLO}).json()
