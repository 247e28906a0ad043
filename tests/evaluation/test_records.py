"""Text answers of any records: what is asked, with which turns before it, and how answers are compared."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from llada_uni.data.records import BadRecords
from llada_uni.data.sources import open_source
from llada_uni.errors import UserError
from llada_uni.evaluation.records import RecordSuite
from llada_uni.evaluation.report import format_table
from llada_uni.evaluation.run import run_suites
from tests.data.helpers import assistant, drawing, image, question, text, user, write_records


class Parrot:
    """A model that gives the same answer to everything, and remembers what it was asked."""

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, []

    def understand(self, images, question, seed):
        self.asked.append((len(images), question, seed))
        return SimpleNamespace(text=self.answer)

    def chat(self, messages, seed):
        self.asked.append([(m["role"], [p if isinstance(p, str) else "image" for p in m["content"]]) for m in messages])
        return SimpleNamespace(text=self.answer)


def suite_of(folder, records, **options):
    return RecordSuite(open_source(write_records(folder, records)), **options)


def test_answers_are_compared_by_class(tmp_path):
    records = [question(answer=a, words=f"{n}?") for n, a in enumerate(["red", "Red.", "blue", "dark red"])]
    records[2]["mix"] = "colors"
    suite = suite_of(tmp_path, [*records, drawing()])
    report = run_suites(Parrot("red"), [suite], None, answers_path=tmp_path / "answers.jsonl", html_dir=tmp_path / "page")
    found = report["suites"]["records"]
    assert found["classes"]["understand"] | {"interval": 0} == {"score": pytest.approx(2 / 3), "n": 3, "interval": 0}
    assert found["classes"]["colors"]["score"] == 0.0
    assert found["overall"] == pytest.approx(1 / 3) and found["n"] == 4
    assert found["metrics"] == {"exact": 0.5, "f1": pytest.approx((1 + 1 + 0 + 2 / 3) / 4)}
    assert found["left_out"] == {"t2i": 1} and found["bad"] == []
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(line["wanted"], line["got"], line["scores"]["right"]) for line in lines][3] == ("dark red", "red", 0.0)
    assert (tmp_path / "page" / "index.html").read_text().count("data:image/png") == 4
    assert "understand" in format_table(report) and "all samples a suite" in format_table(report)


def test_several_captions_of_one_image_are_one_question(tmp_path):
    captions = [question("describe it", answer) for answer in ("a red thing", "all red", "red")]
    model = Parrot("all red")
    found = run_suites(model, [suite_of(tmp_path, captions)], None)["suites"]["records"]
    assert found["n"] == 1 and found["overall"] == 1.0 and model.asked == [(1, "describe it", 0)]


def test_turns_before_an_answer_are_those_of_the_record(tmp_path):
    turns = [user(image("red.png"), text("color?")), assistant(text("red")), user(text("sure?")), assistant(text("yes"))]
    dialogue = {"task": "dialogue", "learn": "all", "messages": turns}
    model = Parrot("yes")
    found = run_suites(model, [suite_of(tmp_path, [dialogue])], None)["suites"]["records"]
    assert found["classes"]["dialogue"]["score"] == 0.5
    assert model.asked == [
        (1, "color?", 0),
        [("user", ["image", "color?"]), ("assistant", ["red"]), ("user", ["sure?"])],
    ]


def test_a_limit_takes_a_random_part_and_rows_can_be_answers(tmp_path):
    records = [question(f"{n}?", "red" if n < 50 else "blue") for n in range(100)]
    suite = suite_of(tmp_path, records, by="answer")
    found = run_suites(Parrot("red"), [suite], 20, seed=1)["suites"]["records"]
    assert found["classes"].keys() == {"red", "blue"}, "sorted records: the first twenty are all red"
    assert (found["classes"]["red"]["score"], found["classes"]["blue"]["score"], found["overall"]) == (1.0, 0.0, 0.5)
    asked = [[], []]
    for one in asked:
        run_suites(model := Parrot(""), [suite], 20, seed=1)
        one += model.asked
    assert asked[0] == asked[1] and len(asked[0]) == 20


def test_what_cannot_be_compared_is_told(tmp_path):
    with pytest.raises(UserError, match=r"^no record has a text answer to compare with \(2 of t2i\)"):
        suite_of(tmp_path, [drawing(), drawing("another")])
    with pytest.raises(UserError, match="'cider' is no choice here; allowed: exact, f1"):
        suite_of(tmp_path, [question()], metric="cider")
    with pytest.raises(UserError, match=r"records\.jsonl:2: is not JSON"):
        suite_of(tmp_path, [question(), "{"])
    suite = suite_of(tmp_path, [question(), "{"], bad=BadRecords("skip"))
    assert len(run_suites(Parrot("red"), [suite], None)["suites"]["records"]["bad"]) == 1
    records = [question(name="gone.png"), question()]
    with pytest.raises(UserError, match=r"records\.jsonl:1: there is no picture .*gone\.png"):
        run_suites(Parrot("red"), [suite_of(tmp_path, records)], None)
    found = run_suites(Parrot("red"), [suite_of(tmp_path, records, bad=BadRecords("skip"))], None)["suites"]["records"]
    assert (found["n"], found["errors"], found["overall"]) == (1, 0, 1.0) and len(found["bad"]) == 1
