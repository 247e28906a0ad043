"""LLaVA's and ShareGPT's conversations."""

from __future__ import annotations

import json

import pytest

from llada_uni.data.importers.items import ReadOptions
from llada_uni.errors import UserError
from tests.data.importers.helpers import color_of, imported, picture, put, said

ONE = {
    "id": "1",
    "image": "coco/red.png",
    "conversations": [{"from": "human", "value": "<image>\nwhat color?"}, {"from": "gpt", "value": "red"}],
}
TALK = {
    "id": "1",
    "images": ["coco/red.png", "coco/blue.png"],
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image> and <image>: equal?"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "red, blue"},
    ],
}
TEXT = {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "good day"}]}


@pytest.fixture
def images(tmp_path):
    put(tmp_path / "coco" / "red.png", picture("red"))
    put(tmp_path / "coco" / "blue.png", picture("blue"))
    return tmp_path


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_conversations_keep_their_order_and_images(images, form):
    entries = [ONE, TALK, TEXT]
    text = json.dumps(entries) if form == "json" else "\n".join(map(json.dumps, entries))
    path = put(images / f"talk.{form}", "\ufeff" + text)
    _, records = imported("llava", path, images / "out")
    one, talk, plain = records
    assert said(one) == ("understand", "what color?", "red") and color_of(one) == (255, 0, 0)
    assert talk.task == "dialogue" and talk.learn_all and [m.role for m in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[0].text() == "Be brief. and : equal?"
    assert [p.open().getpixel((0, 0)) for p in talk.messages[0].pictures()] == [(255, 0, 0), (0, 0, 255)]
    assert said(plain) == ("text", "hello", "good day") and not list(plain.pictures())


def test_images_may_lie_elsewhere_and_unmarked_ones_come_first(images, tmp_path_factory):
    entry = {**ONE, "image": "red.png", "conversations": [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "r"}]}
    path = put(tmp_path_factory.mktemp("texts") / "talk.json", json.dumps([entry]))
    _, records = imported("llava", path, images / "out", read=ReadOptions(images=str(images / "coco")))
    assert said(records[0]) == ("understand", "what?", "r") and color_of(records[0]) == (255, 0, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "coco/gone.png"}, r":2: there is no image .*gone\.png"),
        ({"image": "../red.png"}, r":2: the path '\.\./red\.png' leads out of"),
        ({"image": ["coco/red.png", "coco/blue.png"]}, r":2: <image> stands 1 times in the conversation, which has 2 images"),
        ({"conversations": []}, r':2: there are no "conversations"'),
        ({"conversations": [{"from": "bot", "value": "x"}]}, r":2: turn 1 is from 'bot'; allowed: human"),
        ({"conversations": [{"from": "human", "value": " "}]}, r":2: turn 1 has no text"),
    ],
)
def test_faults_are_named_by_line(images, change, reason):
    path = put(images / "talk.jsonl", json.dumps(ONE) + "\n" + json.dumps(ONE | change) + "\n")
    with pytest.raises(UserError, match=reason):
        imported("llava", path, images / "out")


def test_a_line_that_is_no_json_is_one_bad_record(images):
    path = put(images / "talk.jsonl", json.dumps(ONE) + "\n{\n" + json.dumps(TEXT) + "\n")
    result, records = imported("llava", path, images / "out", on_bad="skip")
    assert len(records) == 2 and len(result.bad) == 1 and "talk.jsonl:2: is not JSON" in result.bad[0]
