"""Batches of equal pictures: features and codes are those of transformers' classes and of `ImageTokenizer`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.image.batched import batch_attention, batched_codes, batched_features, patchify, seen_features
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.training.tokenizer.picture_batches import to_images


@pytest.fixture
def tokenizer(golden) -> ImageTokenizer:
    return ImageTokenizer.from_pretrained(golden / "image_tokenizer")


@pytest.mark.parametrize("height, width", [(32, 32), (32, 64), (16, 24)])
def test_features_equal_the_classes_own_forward(tokenizer, height, width):
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    patch = tokenizer.patch_size
    grids = [(height // patch, width // patch)] * 3
    with torch.no_grad():
        theirs = tokenizer.features(patchify(images, patch).flatten(0, 1), grids)
        names = list(tokenizer.state_dict())
        batch_attention(tokenizer.vision)
        ours = batched_features(tokenizer.vision, images)
    assert torch.allclose(ours.flatten(0, 1), theirs, atol=1e-5)
    assert list(tokenizer.state_dict()) == names


def test_pictures_of_different_sizes_still_attend_to_themselves_alone(tokenizer):
    patch = tokenizer.patch_size
    patches = torch.randn(20 + 12, 3 * patch * patch, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = tokenizer.features(patches, [(4, 5), (3, 4)])
        batch_attention(tokenizer.vision)
        after = tokenizer.features(patches, [(4, 5), (3, 4)])
    assert torch.allclose(before, after, atol=1e-6)


def test_codes_equal_those_of_the_tokenizer(tokenizer):
    arrays = [np.random.default_rng(i).integers(0, 256, (32, 48, 3)).astype(np.uint8) for i in range(4)]
    expected = [tokenizer.encode(Image.fromarray(array), "raw") for array in arrays]
    codes = batched_codes(tokenizer, to_images(arrays))
    assert [tuple(row) for row in codes.tolist()] == [code.codes for code in expected]


def test_part_of_the_patches(tokenizer):
    """All in order are the whole picture; the others are as if they were not there, whatever stands in them."""
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    vision, patch = batch_attention(tokenizer.vision), tokenizer.patch_size
    count = (24 // patch) * (32 // patch)
    with torch.no_grad():
        whole = batched_features(vision, images)
        assert torch.allclose(seen_features(vision, images, torch.arange(count).expand(2, -1)), whole, atol=1e-5)
        seen = torch.tensor([[0, 2, count - 1], [1, 2, 3]])
        some = seen_features(vision, images, seen)
        other = images.clone()
        other[0, :, :patch, patch : 2 * patch] = 0  # patch 1 of the first, which sees 0, 2 and the last
        assert torch.equal(seen_features(vision, other, seen), some)
        other[0, :, :patch, :patch] = 0
        assert not torch.allclose(seen_features(vision, other, seen)[0], some[0], atol=1e-3)
