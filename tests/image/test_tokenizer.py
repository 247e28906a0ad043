"""Pixels to codes: equal to the recorded codes, saved and read back, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llada_uni.errors import UserError
from llada_uni.image.reader import open_image
from llada_uni.image.tokenizer import ImageTokenizer


@pytest.fixture(scope="module")
def folder(golden):
    return golden / "image_tokenizer"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return ImageTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def recorded(folder):
    return json.loads((folder / "tokens.json").read_text())


def test_recorded_codes(tokenizer, folder, recorded):
    assert len(recorded) == 5
    for entry in recorded:
        codes = tokenizer.encode(open_image(folder / entry["file"]), mode="raw")
        assert [1, codes.height, codes.width] == entry["grid_thw"], entry["file"]
        assert list(codes.codes) == entry["token_ids"], entry["file"]


def test_transparent_picture_without_open_image(tokenizer, folder, recorded):
    entry = next(entry for entry in recorded if entry["file"] == "image_rgba.png")
    assert list(tokenizer.encode(Image.open(folder / "image_rgba.png"), "raw").codes) == entry["token_ids"]


def test_many_pictures_give_the_codes_of_one(tokenizer, folder, recorded):
    pictures = [open_image(folder / entry["file"]) for entry in recorded]
    together = tokenizer.encode_many(pictures, "raw")
    assert [list(codes.codes) for codes in together] == [entry["token_ids"] for entry in recorded]
    assert tokenizer.encode_many([]) == []


def test_modes(tokenizer):
    picture = Image.new("RGB", (100, 60), "red")
    understood = tokenizer.encode(picture)
    assert (understood.height * 8 * understood.width * 8) >= 128 * 128
    edited = tokenizer.encode(picture, "edit")
    assert (edited.height * 8 // 32) * (edited.width * 8 // 32) <= 256
    with pytest.raises(UserError, match="unknown mode 'other'; allowed: understand, edit, raw"):
        tokenizer.encode(picture, "other")
    with pytest.raises(UserError, match="does not divide into patches of 8 px"):
        tokenizer.encode(picture, "raw")


def test_save_and_read_back(tokenizer, folder, tmp_path):
    tokenizer.save_pretrained(tmp_path / "copy")
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "copy"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = ImageTokenizer.from_pretrained(tmp_path / "copy")
    assert again.settings == tokenizer.settings
    assert again.config == tokenizer.config
    picture = open_image(folder / "image_0.png")
    assert again.encode(picture, "raw") == tokenizer.encode(picture, "raw")
    assert not list((tmp_path / "copy").glob(".*"))


def test_save_in_half_precision(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path, torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert ImageTokenizer.from_pretrained(tmp_path).vq.quantize.embedding.weight.dtype == torch.float32


def test_refuses_broken_directories(folder, tmp_path):
    with pytest.raises(UserError, match="there is no image tokenizer"):
        ImageTokenizer.from_pretrained(tmp_path / "none")

    def copy(name: str):
        return shutil.copytree(folder, tmp_path / name)

    place = copy("field")
    config = json.loads((place / "config.json").read_text())
    del config["vision_config"]["depth"]
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match='lacks the field "depth"'):
        ImageTokenizer.from_pretrained(place)

    place = copy("patch")
    settings = json.loads((place / "preprocessor_config.json").read_text())
    (place / "preprocessor_config.json").write_text(json.dumps({**settings, "patch_size": 16}))
    with pytest.raises(UserError, match=r"patch_size is 8 in config.json but 16"):
        ImageTokenizer.from_pretrained(place)

    place = copy("shape")
    tensors = load_file(place / "model.safetensors")
    tensors["model.vqmodel.quant_conv.bias"] = torch.zeros(31)
    save_file(tensors, place / "model.safetensors")
    with pytest.raises(
        UserError, match=r"model.vqmodel.quant_conv.bias has the shape \[31\], expected \[32\]"
    ):
        ImageTokenizer.from_pretrained(place)

    place = copy("short")
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) - 100])
    with pytest.raises(UserError, match="truncated"):
        ImageTokenizer.from_pretrained(place)
