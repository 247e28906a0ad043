"""The tokenizer's objective: the batched transformer equals transformers' own, answers stand where they belong."""

from __future__ import annotations

import random

import torch

from llada_uni.training.tokenizer import (
    TokenizerObjective,
    answers_of,
    batch_of,
    batched_features,
    degrade,
    merge_synonyms,
    patchify,
)
from llada_uni.world.concepts import COLORS, CONCEPTS, STYLES
from llada_uni.world.scene import Scene, Thing


def test_batched_features_equal_the_classes_own_forward():
    torch.manual_seed(0)
    vision = TokenizerObjective().vision.eval()
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        ours = batched_features(vision, images)
        grid = torch.tensor([[1, 4, 4]] * 3)
        theirs = vision(patchify(images).flatten(0, 1), grid).last_hidden_state
    assert torch.allclose(ours.flatten(0, 1), theirs, atol=1e-5)


def test_every_patch_is_asked_its_own_question():
    scene = Scene((Thing("cat", "flat"), None, None, None), ("blue",))
    answers = answers_of(scene).reshape(4, 4)
    cat, flat, blue = 1 + list(CONCEPTS).index("cat"), 1 + STYLES.index("flat"), list(COLORS).index("blue")
    assert answers[:2, :2].tolist() == [[cat, flat], [blue, cat]]
    assert answers[2:, 2:].tolist() == [[0, 0], [blue, 0]]


def test_pictures_and_noise_stay_in_range():
    images, answers, scenes = batch_of(random.Random(0), 6)
    assert images.shape == (6, 3, 64, 64) and answers.shape == (6, 16) and len(scenes) == 6
    noisy = degrade(images, random.Random(1))
    assert noisy.shape == images.shape and noisy.abs().max() <= 1 and not torch.equal(noisy, images)


def test_synonyms_become_one_code():
    torch.manual_seed(0)
    model = TokenizerObjective().eval()
    images, _, _ = batch_of(random.Random(4242), 50)
    with torch.no_grad():
        merge_synonyms(model, pictures=50)
        book = model.vq.quantize.embedding.weight
        distinct = len(torch.unique(book.round(decimals=5), dim=0))
        used = set(model.codes(images).flatten().tolist())
    assert distinct < len(book)
    assert len(used) <= distinct
