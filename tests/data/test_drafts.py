"""`llada-uni data drafts`: what is learned in a few steps resembles the images, and partial images are drawn by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.cli import main
from llada_uni.data import drafts
from llada_uni.data.some_images import own_tokenizer, some_images
from llada_uni.data.sources import open_source
from llada_uni.errors import UserError
from llada_uni.files.model_dir import DRAFTS
from llada_uni.files.shipped import MODEL, shipped
from llada_uni.image.drafts import Drafter
from llada_uni.results import NO_CODE, Progress
from llada_uni.tasks.parts import Parts
from llada_uni.tasks.preview import Previews, complete_codes

WORLD = shipped("models") / MODEL


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    """The shipped model without decoders, taught in a few steps."""
    model = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(WORLD, model, ignore=shutil.ignore_patterns("decoder*", "vae", "drafts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts.learn_drafts, "__defaults__", (0, 10, None))
        assert main(["data", "drafts", "world:40:5", "--model", str(model), "--images", "24", "--json"]) == 0
    return model


def test_drafts_of_the_shipped_model_resemble_the_images():
    network = Drafter.from_pretrained(DRAFTS.path(WORLD))
    tokenizer = own_tokenizer(WORLD)
    images = [tokenizer.shape(image) for image in some_images(open_source("world:40:77", 96), 6)]
    drawn = [network.draw(codes, tokenizer.patch_size) for codes in tokenizer.encode_many(images)]
    apart = np.array([[_apart(draft, image) for image in images] for draft in drawn])
    assert (apart.argmin(1) == np.arange(len(images))).all()


def _apart(one: Image.Image, other: Image.Image) -> float:
    small = [np.asarray(image.convert("RGB").resize((24, 24), Image.Resampling.BOX), float) for image in (one, other)]
    return float(np.square(small[0] - small[1]).mean())


def test_it_learns_and_says_how_near_drafts_are_and_the_seed_reproduces():
    source = open_source("world:30:5", 96)
    short, first, again = (drafts.learn_drafts(source, WORLD, 30, seed=3, steps=steps) for steps in (2, 20, 20))
    assert first.images == 30 and first.held_back == 3 and first.psnr == again.psnr > short.psnr + 1
    assert all(torch.equal(a, b) for a, b in zip(first.drafter.parameters(), again.drafter.parameters(), strict=True))


def test_partial_images_are_drafts_where_the_model_has_them(taught):
    parts = Parts(taught, torch.device("cpu"), torch.float32)
    codes = (5, NO_CODE, 7, 9)
    progress = Progress("codes", 1, 4, "", (2, 2), codes, (True, False, True, True), (0.9,) * 4)
    (shown,) = [image for image in [Previews(parts, 2).take(progress)] if image is not None]
    assert parts.drafter is not None
    assert shown.tobytes() == parts.drafter.draw(complete_codes(progress), parts.pixels_per_code).tobytes()


def test_drafts_of_other_codes_are_refused(taught, tmp_path):
    shutil.copytree(taught, tmp_path / "model")
    Drafter(7).save_pretrained(tmp_path / "model" / "drafts")
    with pytest.raises(UserError, match="drafts/ is of 7 codes"):
        _ = Parts(tmp_path / "model", torch.device("cpu"), torch.float32).drafter


def test_too_few_images_or_no_tokenizer(tmp_path):
    with pytest.raises(UserError, match="at least 20 different images; there are 5"):
        drafts.learn_drafts(open_source("world:30:5", 96), WORLD, 5)
    with pytest.raises(UserError, match="there is no image_tokenizer in"):
        own_tokenizer(tmp_path)


def test_info_and_save_know_them(taught, tmp_path, capsys):
    assert main(["info", str(taught), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "drafts" in [part["name"] for part in found["parts"]] and "drafts" not in found["missing"]
    assert main(["export", str(tmp_path / "out"), str(taught)]) == 0
    assert (tmp_path / "out" / "drafts" / "model.safetensors").is_file()
