"""The judge learns class folders, keeps its promises about splits, and reads back as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llada_uni.errors import UserError
from llada_uni.photos.images import kept_photos, photos_folder, shrunk
from llada_uni.photos.judge import FilterSteps, Judge, accuracy, augmented, judged, load_judge


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


def test_augmentation_moves_and_mirrors():
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mirrored = torch.arange(64) % 2 == 1
    first, again = (augmented(images, mirrored, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == images.shape
    for one, image, turned in zip(first, images, mirrored, strict=True):
        wide = F.pad((image.flip(2) if turned else image)[None], (2, 2, 2, 2), mode="reflect")[0]
        assert any(torch.equal(one, wide[:, row : row + 32, column : column + 32]) for row in range(5) for column in range(5))


def test_steps_of_filters_are_orthogonal_and_keep_their_norm():
    torch.manual_seed(0)
    filters = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    filters.grad = torch.randn(4, 3, 3, 3)
    before = filters.detach() * (2 / filters.detach().norm())
    FilterSteps([filters], 0.1).step()
    move = ((before - filters.detach()) / 0.1).flatten(1)
    assert torch.allclose(torch.linalg.svdvals(move), torch.ones(4), atol=0.35)
    assert (move * filters.grad.flatten(1)).sum() > 0  # down


def test_images_kept_by_an_older_version_are_read_again(photos, tmp_path):
    np.savez(tmp_path / "images.npz", other=np.zeros(3))
    sets = kept_photos(photos, tmp_path / "images.npz")
    again = kept_photos(photos, tmp_path / "images.npz")
    for split, one in sets.items():
        assert one.classes == again[split].classes and (one.images == again[split].images).all()


def test_large_images_are_averaged():
    from PIL import Image

    checks = np.indices((64, 64)).sum(0) % 2 * 255
    assert np.unique(shrunk(Image.fromarray(np.uint8(checks)))).tolist() in ([127], [128])


def test_no_photographs(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOS", str(tmp_path))
    with pytest.raises(UserError, match="PHOTOS=DIR"):
        photos_folder()
