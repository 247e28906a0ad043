"""The patch tokenizer: answers stand where they belong, training and export, codes of one meaning become one."""

from __future__ import annotations

import random

import torch
from PIL import Image

from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.training.loop import LoopOptions, run
from llada_uni.training.patch_tokenizer import (
    PatchTokenizerOptions,
    answers_of,
    batch_of,
    merge_synonyms,
)
from llada_uni.training.picture_batches import degrade
from llada_uni.training.processes import Processes
from llada_uni.training.vision import BookSizes, VisionSizes
from llada_uni.world.concepts import COLORS, CONCEPTS, STYLES
from llada_uni.world.render import render
from llada_uni.world.scene import Scene, Thing, sample_scene


def tiny_options(**changes) -> PatchTokenizerOptions:
    vision = VisionSizes(hidden_size=32, intermediate_size=64, num_heads=2, depth=1)
    return PatchTokenizerOptions(count=8, vision=vision, book=BookSizes(32, 16), **changes)


def test_every_patch_is_asked_its_own_question():
    scene = Scene((Thing("cat", "flat"), None, None, None), ("blue",))
    answers = answers_of(scene).reshape(4, 4)
    cat, flat, blue = 1 + list(CONCEPTS).index("cat"), 1 + STYLES.index("flat"), list(COLORS).index("blue")
    assert answers[:2, :2].tolist() == [[cat, flat], [blue, cat]]
    assert answers[2:, 2:].tolist() == [[0, 0], [blue, 0]]


def test_pictures_and_noise_stay_in_range():
    images, answers = batch_of(random.Random(0), 6)
    assert images.shape == (6, 3, 64, 64) and answers.shape == (6, 16)
    noisy = degrade(images, random.Random(1))
    assert noisy.shape == images.shape and noisy.abs().max() <= 1 and not torch.equal(noisy, images)


def test_training_lowers_the_loss_and_exports_its_codes(tmp_path):
    objective = tiny_options(features_first=10, reseed_until=25, merge=False).build(Processes(), 0)
    loop = LoopOptions(steps=30, micro_batches=2, lr=3e-3, warmup=5, log_every=5, tensorboard=False)
    first = objective.loss(0, 0, random.Random(0))
    result = run(objective, loop, tmp_path, 0)
    last = objective.loss(0, 0, random.Random(0))  # step 0: features alone
    assert last.total.item() / last.weight < 0.8 * first.total.item() / first.weight
    assert 0 < result["numbers"]["usage"] <= 1
    exported = ImageTokenizer.from_pretrained(tmp_path / "model" / "image_tokenizer")
    picture = render(sample_scene(random.Random(3)), 64)
    images = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, 64, 64, 3)
    codes = objective.codes(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert tuple(codes[0].tolist()) == exported.encode(picture).codes
    assert exported.encode(picture.resize((300, 300), Image.Resampling.BICUBIC)).height == 4


def test_synonyms_become_one_code():
    model = tiny_options().build(Processes(), 0).eval()
    images, _ = batch_of(random.Random(4242), 50)
    said = merge_synonyms(model, pictures=50)
    distinct = len(torch.unique(model.book.round(decimals=5), dim=0))
    used = set(model.codes(images).flatten().tolist())
    assert "meanings" in said and distinct < 32 and len(used) <= distinct
