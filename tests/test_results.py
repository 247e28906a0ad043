"""What notebooks show of results, and what a model says of itself."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from llada_uni import Bars
from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from llada_uni.results import ChatResult, EndEvent, ImageEvent, ImageResult, Progress, TextEvent, TextResult
from tests.tiny_model import make_tiny_model

PICTURE, CODES = Image.new("RGB", (4, 4), "red"), ImageCodes((1, 2, 3, 4), 2, 2)


@pytest.fixture
def model(tmp_path, golden):
    return UniModel.from_pretrained(make_tiny_model(tmp_path / "tiny", golden), device="cpu")


def test_images_are_shown():
    for shown in (ImageResult(PICTURE, CODES, "a cat", 1), ImageEvent(PICTURE, CODES, 1)):
        assert Image.open(io.BytesIO(shown._repr_png_())).tobytes() == PICTURE.tobytes()
    assert ImageResult(None, CODES, "a cat", 1)._repr_png_() is None


def test_text_is_shown_as_text():
    for shown in (TextResult("a <b>cat</b>", 1), TextEvent("a <b>cat</b>", 3)):
        assert shown._repr_html_() == "<p>a &lt;b&gt;cat&lt;/b&gt;</p>"
    assert "no text" in TextResult("", 1)._repr_html_()


def test_answers_are_shown_in_order():
    parts = ("see", ImageEvent(PICTURE, CODES, 1), ImageEvent(None, CODES, 2))
    first, second, third = ChatResult(parts, EndEvent("finished"))._repr_html_().splitlines()
    assert first == "<p>see</p>" and "2 x 2 codes" in third
    data = base64.b64decode(second.partition("base64,")[2].partition('"')[0])
    assert Image.open(io.BytesIO(data)).tobytes() == PICTURE.tobytes()


def test_a_model_says_what_is_in_memory_and_moves(model):
    assert repr(model) == f"UniModel({str(model.folder)!r}, cpu, float32; in memory: nothing yet)"
    codes = model.encode_image(Image.new("RGB", (32, 32)))
    assert repr(model).endswith("in memory: image_tokenizer)")
    assert model.device == torch.device("cpu") and model.dtype == torch.float32
    parts = model.parts
    assert model.to("cpu") is model and model.parts is parts, "nothing to do"
    assert model.to(dtype="bfloat16").dtype == torch.bfloat16 and model.parts.loaded == ()
    assert model.to("cpu", torch.float32).encode_image(Image.new("RGB", (32, 32))) == codes


def test_bars(model, capsys):
    bars = Bars(ascii=True, ncols=80, mininterval=0)
    for _ in range(2):
        model.generate_image("a cat", seed=1, on_progress=bars)
    shown = capsys.readouterr().err
    assert shown.count("drawing codes:   0%") == 2 and shown.count("decoding:   0%") == 2, "a bar for each stage and image"
    assert shown.count("100%") >= 4
    bars(Progress("text", 3, 12))
    bars(Progress("text", 1, 12))  # the next stretch of text
    bars.close()
    assert capsys.readouterr().err.count("writing") >= 2
    Bars(disable=True)(Progress("codes", 1, 1))
    assert capsys.readouterr().err == ""
