"""Conversation records: what is accepted, and that every mistake is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from llada_uni.data.check import check_records
from llada_uni.data.records import BadRecords, PictureFile, parse_record
from llada_uni.data.sources import conversations, open_source
from llada_uni.data.templates import TEMPLATES
from llada_uni.errors import UserError
from llada_uni.text.prompts import TASKS
from llada_uni.text.tokenizer import train_tokenizer
from tests.data.helpers import assistant, drawing, image, question, text, user, write_records


def parse(record):
    return parse_record(record, "here:1", lambda name: PictureFile(name, name))


GOOD = {
    "t2i": drawing(),
    "think": {"task": "think", "messages": [user(text("one and one apples")), assistant(text("two"), image("a.png"))]},
    "understand": question(),
    "caption": {"task": "caption", "messages": [user(image("a.png"), text("describe it")), assistant(text("a cat"))]},
    "edit": {"task": "edit", "messages": [user(image("a.png"), text("remove it")), assistant(image("b.png"))]},
    "story": {"task": "story", "messages": [user(text("a tale")), assistant(text("one"), image("a.png"), text("end"))]},
    "dialogue": {
        "task": "dialogue",
        "learn": "all",
        "messages": [
            user(image("a.png"), text("what?")),
            assistant(text("a cat")),
            user(text("draw it")),
            assistant(image("b.png")),
        ],
    },
    "text": {"task": "text", "messages": [user(text("hello")), assistant(text("good day"))]},
}


def test_every_task_has_a_template_and_a_good_record():
    assert set(GOOD) == set(TEMPLATES)
    for task, template in TEMPLATES.items():
        assert template.system in TASKS
        conversation = parse(GOOD[task])
        assert (conversation.task, conversation.mix) == (task, task)
        assert conversation.learn_all == (task == "dialogue")
    assert parse(GOOD["t2i"] | {"mix": "mine", "id": "7", "meta": {"any": 1}}).mix == "mine"


def changed(good: str, **fields) -> dict:
    return GOOD[good] | fields


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([1], "a JSON object, not list"),
        ({"task": "t2i"}, '"messages" is missing'),
        ({"messages": []}, '"task" is missing'),
        (changed("t2i", task="paint"), "unknown task 'paint'; allowed: t2i, think"),
        (changed("t2i", tsk="x"), 'unknown field "tsk"; allowed: id, task'),
        (changed("t2i", learn="some"), "\"learn\" is 'some'; allowed: answer, all"),
        (changed("t2i", mix=""), '"mix" is'),
        (changed("text", messages="hello"), "must be a list"),
        (changed("text", messages=[]), "nothing to learn"),
        (changed("text", messages=[user(text("a"))]), "nothing to learn"),
        (changed("text", messages=[user(text("a")), user(text("b"))]), "nothing to learn"),
        (changed("text", messages=[assistant(text("a")), assistant(text("b"))]), "take turns"),
        (changed("text", messages=[{"role": "system", "content": "x"}]), "the system text comes from the task"),
        (changed("text", messages=[{"role": "bot", "content": "x"}]), "by 'bot'; allowed: user, assistant"),
        (changed("text", messages=[{"role": "user"}]), 'exactly "role" and "content"'),
        (changed("text", messages=[{"role": "user", "content": []}]), "not empty"),
        (changed("text", messages=[{"role": "user", "content": " "}]), "message 1 has an empty text"),
        (changed("text", messages=[{"role": "user", "content": [{"type": "video"}]}]), "neither"),
        (changed("text", messages=[{"role": "user", "content": [{"type": "text", "image": "a"}]}]), "neither"),
        (changed("t2i", messages=GOOD["edit"]["messages"]), "task t2i: the user shows no pictures here, 1 found"),
        (changed("understand", messages=GOOD["text"]["messages"]), "task understand: the user must show a picture"),
        (changed("t2i", messages=GOOD["text"]["messages"]), "exactly one picture and no text"),
        (changed("story", messages=GOOD["text"]["messages"]), "the answer must be text and a picture"),
        (changed("caption", messages=GOOD["edit"]["messages"]), "the answer must be text only; it has 0 texts and 1 pictures"),
    ],
)
def test_mistakes_are_named(record, reason):
    with pytest.raises(UserError) as error:
        parse(record)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_records_stop_or_are_listed_with_file_and_line(tmp_path):
    path = write_records(tmp_path, [drawing(), "", "{oops", question(), {"task": "t2i"}])
    with pytest.raises(UserError, match=r"records.jsonl:3: is not JSON"):
        list(conversations(open_source(path), BadRecords("stop")))
    bad = BadRecords("skip")
    assert [c.where.rpartition(":")[2] for c in conversations(open_source(path), bad)] == ["1", "4"]
    assert [line.split(": ")[0].rpartition(":")[2] for line in bad.found] == ["3", "5"]
    with pytest.raises(UserError, match="allowed: stop, skip"):
        BadRecords("maybe")


def test_check_opens_every_picture_and_counts(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    Image.new("RGB", (1, 300)).save(tmp_path / "thin.png")
    names = ["red.png", "blue.png", "torn.png", "thin.png", "gone.png"]
    path = write_records(tmp_path, [question(name=name) for name in names] + [drawing() | {"mix": "mine"}])
    seen = []
    report = check_records(open_source(path), on_record=seen.append)
    assert report.records == 3 and seen == [1, 2, 2, 2, 2, 3]
    assert vars(report.tasks["understand"]) == {"records": 2, "answers": 2, "pictures": 2, "tokens": 0}
    assert report.tasks["mine"].records == 1
    assert report.sizes == {(64, 64): 1, (96, 64): 1}
    assert len(report.bad) == 3
    for line, (number, reason) in zip(
        report.bad, [(3, "no picture that can be read"), (4, "allowed: sides"), (5, "there is no picture")], strict=True
    ):
        assert f"records.jsonl:{number}: " in line and reason in line
    assert check_records(open_source(path), limit=2).records == 2


def test_records_are_utf8(tmp_path):
    path = write_records(tmp_path, [drawing("ein rötliches Ding")])
    path.write_bytes(path.read_bytes() + json.dumps(drawing()).encode("utf-16") + b"\n")
    bad = BadRecords("skip")
    assert len(list(conversations(open_source(path), bad))) == 1
    assert "is not UTF-8" in bad.found[0] or "is not JSON" in bad.found[0]


def test_the_records_of_the_documentation_are_good():
    documentation = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    examples = [json.loads(example) for example in re.findall(r"```json\n(.*?)\n```", documentation, re.DOTALL)]
    assert {parse(example).task for example in examples} == set(TEMPLATES)


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_half_a_character_is_found_before_the_tokenizer_meets_it(tmp_path, role):
    record = question("what is \ud83d here?", "red") if role == "user" else question("what?", "a \udc00 b")
    write_records(tmp_path, [record, question()])
    report = check_records(open_source(tmp_path))
    assert report.records == 1
    assert "records.jsonl:1: the text of message" in report.bad[0] and "half a surrogate pair" in report.bad[0]


def test_check_finds_an_id_that_comes_again_and_texts_that_are_too_long(tmp_path):
    text = train_tokenizer(["a red thing"] * 4, 400)
    records = [{**question(), "id": "a"}, {**question("which?"), "id": "a"}, question("why? " * 40)]
    write_records(tmp_path, records)
    report = check_records(open_source(tmp_path), text=text, longest=60)
    assert report.records == 1 and len(report.bad) == 2
    assert "records.jsonl:2: the id a has been taken" in report.bad[0]
    assert "records.jsonl:3: its texts take" in report.bad[1] and "allowed: 60" in report.bad[1]
