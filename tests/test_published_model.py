"""The published directory, as it comes: every command and adapter runs on it, none of its Python does, its files stay.

`LLADA_UNI_RELEASED` may name another such directory (the recorded one, unpacked); the tests then run on that as well.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor

import llada_uni.adapters.transformers_auto  # noqa: F401  makes transformers know our classes
from llada_uni.adapters.diffusers_pipeline import LLaDA2UniPipeline
from llada_uni.checkpoint.info import model_info
from llada_uni.cli import main
from llada_uni.model import UniModel
from llada_uni.serving.http.app import create_app
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.scheduler.service import Service
from tests.published_model import NAMINGS, fingerprint, make_published_model
from tests.serving.servers import asgi_client, ask, data_uri, wait_for

RECORDED = os.environ.get("LLADA_UNI_RELEASED")
PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
QUICK = ["--block-length", "8"]


@pytest.fixture(scope="module", params=["small", *([RECORDED] if RECORDED else [])])
def folder(request, tmp_path_factory, golden):
    if request.param != "small":
        return Path(request.param)
    return make_published_model(tmp_path_factory.mktemp("published") / "model", golden)


@pytest.fixture(autouse=True)
def untouched(folder):
    """Neither a file of the directory nor its Python's traps may show after any test."""
    before = fingerprint(folder)
    yield
    assert fingerprint(folder) == before


@pytest.fixture
def size(folder):
    cell = UniModel.from_pretrained(folder, device="cpu").parts.pixels_per_code
    return ["--height", str(2 * cell), "--width", str(2 * cell)]


@pytest.fixture
def call(folder, tmp_path, monkeypatch, capsys):
    """A command on the directory, run in an empty folder; its output."""
    monkeypatch.chdir(tmp_path)
    PICTURE.save("a.png")
    mask = Image.new("L", PICTURE.size)
    mask.paste(255, (0, 0, 40, 64))
    mask.save("mask.png")

    def run(*arguments: str, model: str | None = None) -> str:
        code = main([*arguments, *(["-m", model or str(folder)] if arguments[0] not in NO_MODEL else [])])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    return run


NO_MODEL = ("info", "convert", "quantize")


def test_info_says_what_is_unusual(call, folder):
    found = json.loads(call("info", str(folder), "--json"))
    assert found["missing"] == [] and found["broken"] == []
    for words in ("published model", "auto_map", "merge_size 2", "chat template"):
        assert any(words in note for note in found["notes"]), words


@pytest.mark.parametrize("how", [["--decoder", "turbo"], ["--decoder", "base"], ["--decoder", "none", "--thinking"]])
def test_generate(call, size, how):
    out = "x.json" if "none" in how else "x.png"
    steps = [] if "none" in how else ["--decoder-steps", "2"]
    extra = ["--reasoning-max-tokens", "8", "--reasoning-steps", "2"] if "--thinking" in how else []
    call("generate", "a cat", "-o", out, "--image-steps", "2", "--seed", "1", *size, *how, *steps, *extra, *QUICK)
    assert Path(out).is_file()


def test_understand(call):
    few = ["--max-tokens", "4", "--text-steps", "1", *QUICK]
    call("understand", "a.png", "-q", "what is it?", *few)
    call("understand", "a.png", "a.png", "-q", "what changed?", *few)
    call("understand", "a.png", *few)


def test_encode_edit_inpaint_decode(call):
    few = ["--image-steps", "1", "--decoder", "turbo", "--decoder-steps", "1", "--seed", "1"]
    call("encode", "a.png", "--mode", "edit", "--format", "pt", "-o", "a.pt")
    call("encode", "a.png", "-o", "a.json")
    call("edit", "a.pt", "-i", "make it blue", "-o", "edited.png", *few, *QUICK)
    call("inpaint", "a.png", "mask.png", "a cat", "-o", "filled.png", *few, *QUICK)
    call("decode", "a.pt", "-o", "again.png", *few[2:])
    call("decode", "a.json", "-o", "half.png", "--resolution-multiplier", "1", *few[2:])
    again, half = Image.open("again.png"), Image.open("half.png")
    assert Image.open("edited.png").size == again.size and half.size <= again.size


def test_convert_both_ways_and_quantize(call, folder):
    call("convert", str(folder), "stacked", "--to", "stacked")
    call("convert", "stacked", "released", "--to", "released")
    call("quantize", str(folder), "int8", "--format", "int8")
    before, after = (UniModel.from_pretrained(place, device="cpu").parts for place in (folder, "released"))
    assert before.defaults == after.defaults and before.defaults.as_published
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(*(parts.backbone(ids) for parts in (before, after)))
    call("understand", "a.png", "--max-tokens", "2", "--text-steps", "1", *QUICK, model="int8")


def test_serve(folder):
    model = UniModel.from_pretrained(folder, device="cpu")
    service = Service(model, Limits())
    service.start()
    try:
        wait_for(lambda: service.ready or service.failure is not None, "the model was loaded")
        assert service.failure is None
        client = asgi_client(create_app(service))
        side = 2 * model.parts.pixels_per_code
        few = {"decoder": "turbo", "decoder_steps": 1, "seed": 1}
        drawn = ask(client, "/v1/images/generations", json={"prompt": "a cat", "size": f"{side}x{side}", **few})
        edited = ask(client, "/v1/images/edits", json={"prompt": "blue", "image": data_uri(PICTURE), **few})
        shown = {"type": "image_url", "image_url": {"url": data_uri(PICTURE)}}
        content = [shown, {"type": "text", "text": "what?"}]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
        talked = ask(client, "/v1/chat/completions", json=body)
        assert [answer.status_code for answer in (drawn, edited, talked)] == [200] * 3, (drawn.text, edited.text, talked.text)
    finally:
        service.close()


def test_adapters(folder):
    pipe = LLaDA2UniPipeline.from_pretrained(folder)
    side = 2 * pipe.model.parts.pixels_per_code
    drawn = pipe("a cat", height=side, width=side, num_inference_steps=1, decoder="turbo", decoder_steps=1)
    assert drawn.images[0].size == (side, side)
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = AutoProcessor.from_pretrained(folder)(text="what?", images=[PICTURE])
    assert model.generate(**inputs, max_new_tokens=4, text_steps=1).shape[1] > inputs["input_ids"].shape[1]
    assert model.defaults.as_published


ASKED = {"max_tokens": 4, "text_steps": 1, "seed": 1}


@pytest.fixture(scope="module")
def expected(tmp_path_factory, golden):
    """(codes of the picture, an answer about it) of the same weights under the published names."""
    model = UniModel.from_pretrained(make_published_model(tmp_path_factory.mktemp("names") / "model", golden), device="cpu")
    codes = model.encode_image(PICTURE)
    return codes, model.understand(codes, "", **ASKED).text


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_name_of_a_file_is_read(tmp_path, golden, naming, expected):
    folder = make_published_model(tmp_path / "model", golden, naming)
    info = model_info(folder)
    assert info.missing == () and info.broken == ()
    model = UniModel.from_pretrained(folder, device="cpu")
    codes = model.encode_image(PICTURE)
    assert (codes, model.understand(codes, "", **ASKED).text) == expected
    for decoder in ("turbo", "base"):
        model.decode_codes(codes, decoder=decoder, decoder_steps=2)
    saved = model.save_pretrained(tmp_path / "saved")
    assert model_info(saved).broken == () and not list(saved.rglob("*.py"))
    again = UniModel.from_pretrained(saved, device="cpu")
    assert (again.encode_image(PICTURE), again.understand(codes, "", **ASKED).text) == expected
