"""Images of the small world: draws depend on the rng alone, splits are kept, captions and questions fit."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from llada_uni.data.pictures import open_pictures
from llada_uni.world.checker import Checker
from llada_uni.world.split import is_held_out


@pytest.fixture(scope="module")
def checker():
    return Checker()


@pytest.mark.parametrize("split", ["train", "heldout", "any"])
def test_the_world_keeps_its_split(split, checker):
    pictures = open_pictures("world", 64, split).draw(random.Random(0), 20)
    held_out = [is_held_out(checker.read(Image.fromarray(picture.image)).scene) for picture in pictures]
    assert {"train": not any(held_out), "heldout": all(held_out), "any": 0 < sum(held_out) < 20}[split]
    assert all(picture.image.shape == (64, 64, 3) and picture.image.dtype == "uint8" for picture in pictures)
    assert all(" on " in picture.caption and 1 <= len(picture.questions) <= 4 for picture in pictures)


def test_a_draw_depends_on_the_rng_alone():
    source = open_pictures("world", 32)
    first, second, other = (source.draw(random.Random(seed), 8) for seed in (1, 1, 2))
    for a, b in zip(first, second, strict=True):
        assert (a.image == b.image).all() and (a.caption, a.questions) == (b.caption, b.questions)
    assert [p.caption for p in first] != [p.caption for p in other]
