"""The demonstration on a tiny model: all files are there, the page is whole and safe, the same seed gives
the same.
"""

from __future__ import annotations

import base64
import html
import json
import re
from html.parser import HTMLParser

import pytest

from llada_uni.model import UniModel
from llada_uni.world.concepts import CONCEPTS
from llada_uni.world.demo.demo import EDITS, PROMPTS, QUESTIONS, STORIES, THINKING, UNSEEN, run_demo
from llada_uni.world.demo.demo_page import render_page
from llada_uni.world.split import held_out_pairs
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden):
    return UniModel.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden), "cpu")


@pytest.fixture(scope="module")
def shown(model, tmp_path_factory):
    out, lines, steps = tmp_path_factory.mktemp("demo"), [], []
    return run_demo(model, out, 1, lines.append, steps.append), out, lines, steps


class Reader(HTMLParser):
    """Pictures, links, and whether every opened tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.images, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "img":
            self.images.append(named["src"])
        if tag in ("a", "link", "script"):
            self.links.append(named.get("href") or named.get("src"))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_everything_is_written(shown):
    results, out, lines, steps = shown
    assert json.loads((out / "results.json").read_text()) == results
    items = {section["name"]: section["items"] for section in results["sections"]}
    assert [item["prompt"] for item in items["draw"]] == list(PROMPTS)
    assert [item["prompt"] for item in items["think"]] == list(THINKING)
    assert [item["prompt"] for item in items["edit"]] == list(EDITS)
    assert [one["question"] for one in items["understand"][0]["exchange"]] == list(QUESTIONS)
    assert items["story"][0]["prompt"] == STORIES[0] and len(items["inpaint"]) == 1
    named = set(re.findall(r'"(?:file|before|mask)": "([^"]+)"', json.dumps(results)))
    assert named == {path.name for path in out.glob("*.png")} and len(named) >= 11
    for item in items["draw"]:
        assert item["seed"] >= 1 and item["evaluations"]["backbone"] >= 1 and item["seconds"]["total"] > 0
    assert any("index.html" in line for line in lines)
    assert {step.stage for step in steps} == {"text", "codes", "decode"}


def test_the_page_is_whole_and_needs_nothing_else(shown):
    _results, out, _, _ = shown
    page = (out / "index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.links == ["results.json"]
    assert len(reader.images) >= 13
    for source in reader.images:
        assert base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    for words in (*PROMPTS, *THINKING, *EDITS, *QUESTIONS, *STORIES, "llada-uni generate", "UniModel"):
        assert words in html.unescape(page)


def test_the_same_seed_gives_the_same_pictures(model, shown, tmp_path):
    _, out, _, _ = shown
    run_demo(model, tmp_path, 1)
    for path in sorted(out.glob("*.png")):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_words_of_a_model_cannot_write_html(shown):
    results, out, _, _ = shown
    evil = json.loads(json.dumps(results))
    for section in evil["sections"]:
        for item in section["items"]:
            for name in ("prompt", "text", "reads"):
                item[name] = "<script>alert(1)</script>"
            for one in item.get("exchange", []):
                one["answer"] = "<img src=x onerror=alert(1)>"
            for frame in item.get("frames", []):
                frame["text"] = '"><i>'
    page = render_page(evil, out)
    assert "<script>" not in page and "<img src=x" not in page and '"><i>' not in page
    assert "&lt;script&gt;" in page


def test_what_is_called_unseen_is_held_out_and_nothing_else_is():
    pairs = held_out_pairs()
    for prompt in PROMPTS:
        words = {word.removesuffix("s") for word in prompt.replace(",", "").split()} & set(CONCEPTS)
        assert any(pair <= words for pair in pairs) == (prompt in UNSEEN)
