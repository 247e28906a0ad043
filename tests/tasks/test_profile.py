"""The profile of the published model: its defaults, its prompts and its last block; models trained here keep their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from llada_uni.tasks.defaults import FILE, Defaults
from llada_uni.tasks.parts import find_model
from llada_uni.text.prompts import UNCONDITION, Turn
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
RED = Image.new("RGB", (32, 32), (250, 30, 30))


class Recorder:
    """An engine that keeps what it was asked for."""

    def __init__(self, engine):
        self.engine, self.calls = engine, []

    def generate(self, prompt, settings, branches=None, **more):
        made = self.engine.generate(prompt, settings, branches=branches, **more)
        self.calls.append((list(prompt), settings, dict(branches or {}), list(made.tokens)))
        return made


def opened(folder, profile):
    settings = json.loads((folder / FILE).read_text()) | {"profile": profile}
    (folder / FILE).write_text(json.dumps(settings))
    model = UniModel.from_pretrained(folder, device="cpu")
    model.parts.engine = Recorder(model.parts.engine)
    return model


@pytest.fixture(params=["published", "plain"])
def model(request, tmp_path, golden):
    return opened(make_tiny_model(tmp_path / "tiny", golden), request.param)


def flat(settings, before=""):
    found = {}
    for name, value in settings.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def test_the_table_in_the_docs_is_the_code():
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \| (.+) \|$", (ROOT / "docs" / "released.md").read_text(), re.MULTILINE)
    table = {name: (json.loads(published), json.loads(shipped)) for name, published, shipped in rows if name != FILE}
    published = flat(Defaults.published().to_json())
    shipped = flat(Defaults.from_folder(find_model("world")).to_json())
    assert table == {name: (published[name], shipped[name]) for name in published}


@pytest.mark.parametrize("content", [None, {}, {"eos_token_id": 3, "transformers_version": "5"}])
def test_a_directory_without_our_keys_has_the_published_defaults(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_text(json.dumps(content))
    assert Defaults.from_folder(tmp_path) == Defaults.published()


def test_one_key_of_ours_makes_it_a_model_of_ours():
    assert Defaults.from_json({"block_length": 8}) == Defaults(block_length=8)
    own = Defaults.from_json({"profile": "published", "generate": {"cfg_scale": 3.0}})
    assert (own.generate.cfg_scale, own.generate.rescale, own.generate.codes.steps) == (3.0, 0.7, 16)
    with pytest.raises(UserError, match="profile must be one of published, plain, not 'mine'"):
        Defaults.from_json({"profile": "mine"})


def test_reasoning_goes_into_the_second_prompt(model):
    result = model.generate_image("a cat", thinking=True, seed=4, decoder="none", reasoning_temperature=1.0)
    form, published = model.parts.format, model.parts.defaults.as_published
    (first, _, _, written), (second, settings, branches, _) = model.parts.engine.calls
    header = form.image_header(result.codes.height, result.codes.width)
    assert first == form.prompt("generate_thinking", [Turn("user", ("a cat",))])
    task = "generate_thinking" if published else "generate"
    assert branches["uncond"] == [*form.prompt(task, [Turn("user", (UNCONDITION,))]), *header]
    ended = written[-1:] == [form.text.eos_id]
    said = written[: len(written) - ended] if form.read_header(written) is None else written[:-4]
    if not published:
        said = [token for token in said if form.text.is_text(token)]
    assert second == [*first, *said, *header]
    assert settings.overhang is published


def test_the_branch_of_an_edit_without_its_image(model):
    model.edit_image([RED, RED], "make it blue", image_scale=1.0, text_scale=2.0, seed=1, decoder="none")
    form, published = model.parts.format, model.parts.defaults.as_published
    ((prompt, settings, branches, _),) = model.parts.engine.calls
    control = form.text.encode_control
    bare = [form.text.image_start_id] if published else []
    text = form.text.encode("make it blue")
    start = control("<role>SYSTEM</role> You are an image editing assistant. <role>HUMAN</role>")
    end = control("<role>ASSISTANT</role>")
    assert branches["no_image"][: -4] == [*start, *bare, *text, *end]
    assert prompt.count(form.text.image_start_id) == 3  # two sources and the header
    assert settings.overhang is published


def test_an_empty_question(model):
    codes = ImageCodes((1,) * 16, 4, 4)
    if not model.parts.defaults.as_published:
        with pytest.raises(UserError, match="the question is empty"):
            model.understand(codes, " ")
        with pytest.raises(UserError, match="needs words"):
            model.chat([{"role": "user", "content": [codes]}], modalities="text")
        return
    model.understand(codes, "", max_tokens=4)
    model.chat([{"role": "user", "content": [codes]}], modalities="text", max_tokens=4)
    (asked, *_), (talked, *_) = model.parts.engine.calls
    assert asked == talked == model.parts.format.prompt("understand", [Turn("user", (codes,))])
    with pytest.raises(UserError, match="needs words"):
        model.chat([{"role": "user", "content": " "}])
