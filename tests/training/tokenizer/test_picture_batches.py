"""Batches of images: mirrored and moved ones in training alone, and an evaluation on another source."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llada_uni.errors import UserError
from llada_uni.training.tokenizer.picture_batches import PictureBatches, PictureOptions, varied
from tests.data.helpers import drawing, write_records


def test_an_image_is_mirrored_and_moved_by_whole_pixels():
    image = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    assert (varied(image, random.Random(0), 0.0, 0) == image).all()
    assert (varied(image, random.Random(0), 1.0, 0) == image[:, ::-1]).all()
    seen = set()
    for seed in range(200):
        moved = varied(image, random.Random(seed), 0.0, 1)
        assert moved.shape == image.shape
        # What is in the middle of the moved image stands one pixel away at most in the original.
        at = np.argwhere((image == moved[2, 2]).all(-1))[0]
        assert abs(at - 2).max() <= 1
        seen.add(tuple(at - 2))
    assert len(seen) == 9


def test_the_heldout_source_is_shown_in_the_evaluation_alone(tmp_path):
    write_records(tmp_path / "train", [drawing("red", "red.png")])
    write_records(tmp_path / "held", [drawing("blue", "blue.png")])
    options = PictureOptions(
        source=str(tmp_path / "train"), heldout=str(tmp_path / "held"), side=8, count=3, shrunk=0.0, mirrored=0.5, moved=2
    )
    batches = PictureBatches(options, need="caption")
    images, pictures = batches.draw(random.Random(0))
    assert {picture.caption for picture in pictures} == {"red"} and images.shape == (3, 3, 8, 8)
    images, pictures = batches.draw(random.Random(0), split="heldout")
    assert {picture.caption for picture in pictures} == {"blue"} and float(images[:, 2].min()) > 0.9


def test_shares_and_moves_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"mirrored is 1\.5; allowed: 0 to 1"):
        PictureOptions(mirrored=1.5)
    with pytest.raises(UserError, match=r"pictures\.moved is 64; allowed: 0 to 63"):
        PictureOptions(moved=64)
