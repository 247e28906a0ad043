"""Answers held to a grammar through the tasks: they parse, streams spell them, and what cannot be kept is said first."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.model import UniModel
from llada_uni.tasks import parts
from tests.tiny_model import make_tiny_model

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden):
    return UniModel.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden), device="cpu")


def said(model, **settings):
    """The answer to a question, which must be what the stream said."""
    heard = []
    asked = {"max_tokens": 40, **settings}
    result = model.chat([{"role": "user", "content": "a cat"}], on_progress=lambda p: heard.append(p.text), **asked)
    assert "".join(heard) == result.text and result.end.reason == "finished"
    return result.text


@pytest.mark.parametrize("rule", ["threshold", "left", "t2t", "t2m"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_json_parses_and_fits_its_schema(model, rule, temperature):
    validator = jsonschema_rs.validator_for(PERSON)
    for seed in range(3):
        text = said(model, json_schema=PERSON, rule=rule, temperature=temperature, seed=seed)
        assert validator.is_valid(json.loads(text)), text


def test_expressions_and_choices(model):
    for seed in range(4):
        assert re.fullmatch(" [a-z]{3} ?", said(model, regex=" [a-z]{3} ?", temperature=1.0, seed=seed))  # no space is lost
        assert said(model, choices=["yes", "no, never", "é+"], temperature=1.0, seed=seed) in ("yes", "no, never", "é+")
    answer = model.understand(Image.new("RGB", (32, 32)), "what?", choices=["a", "b"])
    assert answer.text in ("a", "b") and answer.finished


def test_a_json_object(model):
    assert isinstance(json.loads(said(model, json_schema={"type": "object"})), dict)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"json_schema": PERSON, "max_tokens": 10}, "cannot be finished within max_tokens: its shortest text takes"),
        ({"regex": "a{50}", "max_tokens": 50}, "its shortest text takes 51 tokens, the end included, and 50 are allowed"),
        ({"regex": "[^\\s\\S]"}, "nothing matches it"),
        ({"json_schema": {"not": {}}}, "the keyword 'not' is not supported"),
    ],
)
def test_what_cannot_be_kept_is_said_before_anything_is_computed(model, settings, message, monkeypatch):
    monkeypatch.setattr(parts.Engine, "generate", None)
    with pytest.raises(UserError, match=re.escape(message)):
        model.chat([{"role": "user", "content": "a cat"}], **settings)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_reasoning_text_before_an_image(model, temperature):
    held = {"thinking": True, "reasoning_regex": "[a-c]{2,6} so", "reasoning_temperature": temperature, "decoder": "none"}
    for seed in range(3):
        drawn = model.generate_image("a cat", seed=seed, **held)
        assert re.fullmatch("[a-c]{2,6} so", drawn.text)
        assert (drawn.codes.height, drawn.codes.width) == (4, 4), "the size asked for"


def test_what_reasoning_cannot_keep_is_said_first(model):
    with pytest.raises(UserError, match="reasoning_regex is for reasoning text: set thinking"):
        model.generate_image("a cat", reasoning_regex="a")
    with pytest.raises(UserError, match="its shortest text takes 51 tokens, the end included, and 12 are allowed"):
        model.generate_image("a cat", thinking=True, reasoning_regex="a{50}")
