"""The judge learns class folders, keeps its promises about splits, and reads back as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.photos.images import kept_photos, photos_folder, shrunk
from llada_uni.photos.judge import Judge, accuracy, augmented, judged, load_judge


def test_it_learns_and_says_how_well(judge_folder, photos):
    facts = json.loads((judge_folder / "judge.json").read_text())
    judge, classes = load_judge(judge_folder)
    sets = kept_photos(photos, judge_folder / "images.npz")
    assert classes == ("bird", "deer") == sets["test"].classes
    assert facts["test"]["accuracy"] == accuracy(judge, sets["test"]) > 0.9
    assert facts["test"]["images"] == 40


def test_held_back_images_are_those_of_the_import(photos, judge_folder):
    sets = kept_photos(photos, judge_folder / "images.npz")
    names = [set(sets[split].names) for split in ("train", "held", "test")]
    assert len(names[0]) + len(names[1]) == 320 and not names[0] & names[1] and not names[2] & (names[0] | names[1])
    assert 0 < len(names[1]) < 40


def test_class_of_an_image_and_its_mirror_image():
    judge = Judge(3, (8, 8, 8)).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    classes, features = judged(judge, images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        both = judge(pixels) + judge(pixels.flip(3))
        assert torch.allclose(torch.from_numpy(features), judge.features(pixels), atol=1e-6)
    assert classes.tolist() == both.argmax(1).tolist() and features.shape == (5, 8)
    assert judged(judge, images[:, :, ::-1])[0].tolist() == classes.tolist()


def test_augmentation_moves_mirrors_and_cuts_out():
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, again = (augmented(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == images.shape
    gray = (first == 0.47).all(1).flatten(1).sum(1)
    assert gray.max() == 64 and gray.min() >= 16
    assert not any(torch.equal(one, other) for one, other in zip(first, images, strict=True))


def test_large_images_are_averaged():
    from PIL import Image

    checks = np.indices((64, 64)).sum(0) % 2 * 255
    assert np.unique(shrunk(Image.fromarray(np.uint8(checks)))).tolist() in ([127], [128])


def test_no_photographs(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOS", str(tmp_path))
    with pytest.raises(UserError, match="PHOTOS=DIR"):
        photos_folder()
