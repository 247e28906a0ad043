"""Sigmoid pre-training: the loss by hand, learning, and an export that the quantizer's stage starts from."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.training.loop.prefetch import draw
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.tokenizer.picture_batches import PictureOptions
from llada_uni.training.tokenizer.picture_text import TextOptions
from llada_uni.training.tokenizer.quantizer import QuantizerOptions
from llada_uni.training.tokenizer.siglip import SiglipOptions, TextEncoderSizes, retrieval, same_captions, sigmoid_loss
from llada_uni.training.tokenizer.vision import VisionSizes
from tests.training.helpers.runs import loss_of

TINY = VisionSizes(hidden_size=32, intermediate_size=64, num_heads=2, depth=2)


def tiny_options(**changes) -> SiglipOptions:
    return SiglipOptions(
        pictures=PictureOptions(count=16),
        text=TextOptions(vocab_size=480, pictures=200),
        vision=TINY,
        text_encoder=TextEncoderSizes(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2),
        **changes,
    )


def test_loss_equals_the_sum_over_pairs():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for i in range(5):
        for j in range(5):
            sign = 1.0 if i == j else -1.0
            expected += np.log1p(np.exp(-sign * logits[i, j].item()))
    assert sigmoid_loss(logits).item() == pytest.approx(expected, rel=1e-6)


def test_equal_captions_belong_together():
    ids = torch.tensor([[5, 6, 0], [5, 7, 0], [5, 6, 0]])
    same = same_captions(ids)
    assert same.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    expected = sum(np.log1p(np.exp((-1.0 if same[i, j] else 1.0) * logits[i, j].item())) for i in range(3) for j in range(3))
    assert sigmoid_loss(logits, same).item() == pytest.approx(expected, rel=1e-6)


def test_logits_are_scaled_cosines_and_retrieval_counts_them():
    stage = tiny_options().build(Processes(), 0).eval()
    images, pictures = stage.batches.draw(random.Random(0))
    ids = stage.caption_ids([picture.caption for picture in pictures])
    with torch.no_grad():
        x, y = stage.image_vectors(images), stage.text_vectors(ids)
        logits = stage.logits(images, ids)
    assert torch.allclose(x.norm(dim=-1), torch.ones(16)) and torch.allclose(y.norm(dim=-1), torch.ones(16))
    assert torch.allclose(logits, 10 * (x @ y.T) - 10, atol=1e-4)
    assert retrieval(torch.eye(4)) == {"picture_to_text": 1.0, "text_to_picture": 1.0}
    assert retrieval(torch.tensor([[1.0, 0.0], [2.0, 1.0]])) == {"picture_to_text": 0.5, "text_to_picture": 0.5}


def test_captions_are_cut_and_filled_up():
    stage = tiny_options().build(Processes(), 0)
    ids = stage.caption_ids(["a cat", "a cat and a dog on blue " * 10])
    end = stage.text.tokenizer.eos_id
    assert ids.shape == (2, 32) and ids[:, -1].tolist() == [end, end]
    assert stage.text.tokenizer.decode(ids[0].tolist()) == "a cat"


def test_part_of_the_patches_is_seen_until_a_step_and_never_in_evaluation():
    stage = tiny_options(seen=0.5, whole_from=2).build(Processes(), 0)
    first, second, whole = (draw(stage, 0, step, 0).batch for step in range(3))
    assert first.seen.shape == (16, 8) and whole.seen is None
    assert all(len(set(row)) == 8 and row == sorted(row) for row in first.seen.tolist())
    assert not torch.equal(first.seen, second.seen)
    assert stage.loss(first).total.isfinite()
    assert draw(tiny_options().build(Processes(), 0), 0, 0, 0).batch.seen is None


def test_a_micro_batch_is_the_same_every_time_and_training_lowers_its_loss():
    stage = tiny_options().build(Processes(), 0)
    assert loss_of(stage, 3).total.item() == loss_of(stage, 3).total.item()
    optimizer = torch.optim.AdamW(stage.parameters(), lr=2e-3)
    values = []
    for step in range(40):
        out = loss_of(stage, step)
        optimizer.zero_grad()
        (out.total / out.weight).backward()
        optimizer.step()
        values.append(out.total.item() / out.weight)
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_the_quantizer_starts_from_the_exported_transformer(tmp_path):
    stage = tiny_options().build(Processes(), 0)
    stage.save(tmp_path, stage.state_dict())
    folder = str(tmp_path / "image_tokenizer")
    text = TextOptions(vocab_size=480, pictures=200)
    started = QuantizerOptions(init=folder, vision=TINY, text=text).build(Processes(), 1)
    for name, tensor in stage.vision.state_dict().items():
        assert torch.equal(started.vision.state_dict()[name], tensor)
    with pytest.raises(UserError, match=r"hidden_size 32.*128"):
        QuantizerOptions(init=folder, text=text).build(Processes(), 1)
