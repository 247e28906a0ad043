"""The patch tokenizer: answers stand where they belong, training and export, every answer has a code."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.training.loop.prefetch import seeded
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from llada_uni.training.tokenizer.picture_batches import degrade
from llada_uni.training.tokenizer.vision import BookSizes, VisionSizes
from llada_uni.world.concepts import COLORS, CONCEPTS, STYLES
from llada_uni.world.render import render
from llada_uni.world.sampling import crowded_scene, sample_scene
from llada_uni.world.scene import Thing, placed
from llada_uni.world.training.patch_tokenizer import MEANINGS, PatchTokenizerOptions, answers_of, batch_of
from tests.training.helpers.runs import loss_of


def tiny_options(**changes) -> PatchTokenizerOptions:
    vision = VisionSizes(hidden_size=32, intermediate_size=64, num_heads=2, depth=1, image_size=96)
    return PatchTokenizerOptions(**({"count": 8, "vision": vision, "book": BookSizes(MEANINGS, 16)} | changes))


def test_every_patch_is_asked_its_own_question():
    answers = answers_of(placed({4: Thing("cat", "flat")}, "blue")).reshape(6, 6)
    cat, flat, blue = 1 + list(CONCEPTS).index("cat"), 1 + STYLES.index("flat"), list(COLORS).index("blue")
    assert answers[2:4, 2:4].tolist() == [[4, cat], [blue, flat]]
    assert answers[4:, 4:].tolist() == [[8, 0], [blue, 0]]


def test_pictures_and_noise_stay_in_range():
    rng = random.Random(0)
    images, answers = batch_of(rng, [crowded_scene(rng) for _ in range(6)])
    assert images.shape == (6, 3, 96, 96) and answers.shape == (6, 36)
    noisy = degrade(images, seeded(1, 0, 0))
    assert noisy.shape == images.shape and noisy.abs().max() <= 1 and not torch.equal(noisy, images)


def test_training_lowers_the_loss_and_exports_its_codes(tmp_path):
    stage = tiny_options(features_first=15).build(Processes(), 0)
    loop = LoopOptions(steps=30, micro_batches=2, lr=3e-3, warmup=5, log_every=5, tensorboard=False)
    first = loss_of(stage)
    result = run(stage, loop, tmp_path, 0)
    last = loss_of(stage)  # step 0: features alone
    assert last.total.item() / last.weight < 0.85 * first.total.item() / first.weight
    assert 0 < result["metrics"]["usage"] <= 1
    exported = ImageTokenizer.from_pretrained(tmp_path / "model" / "image_tokenizer")
    picture = render(sample_scene(random.Random(3)), 96)
    images = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, 96, 96, 3)
    codes = stage.codes(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert tuple(codes[0].tolist()) == exported.encode(picture).codes
    assert exported.encode(picture.resize((300, 300), Image.Resampling.BICUBIC)).height == 6


def test_codes_start_at_the_mean_vector_of_every_answer():
    stage = tiny_options(features_first=3).build(Processes(), 0)
    for step in range(3):
        for micro_batch in range(2):
            loss_of(stage, step, micro_batch)
        stage.after_step(step)
    seen = stage.means.norm(dim=1) > 0
    assert seen.float().mean() > 0.5  # rare things may not have come up in so few pictures
    cosines = torch.nn.functional.cosine_similarity(stage.book[:MEANINGS][seen], stage.means[seen])
    assert cosines.min() > 0.999
    before = stage.book.clone()
    loss_of(stage, 3)
    assert set(stage.after_step(3)) == {"usage", "perplexity"} and not torch.equal(before, stage.book)


def test_every_answer_needs_a_code():
    with pytest.raises(UserError, match=f"{MEANINGS} answers"):
        tiny_options(book=BookSizes(MEANINGS - 1, 16)).build(Processes(), 0)
