"""The quantizer through a language model: attention of pairs, straight-through gradient, training, export."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image

from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from llada_uni.training.tokenizer.picture_batches import PictureOptions, to_images
from llada_uni.training.tokenizer.picture_text import TextOptions
from llada_uni.training.tokenizer.probe_lm import IGNORED, ProbeLMOptions, pack_pairs, pair_attention, right_pairs
from llada_uni.training.tokenizer.quantizer import QuantizerOptions, QuantizerStage
from llada_uni.training.tokenizer.vision import BookSizes, VisionSizes
from tests.training.helpers.runs import loss_of

QUESTIONS = [[("what is at the top left", "cat"), ("is there a dog", "no")], [("how many cats are there", "two")]]


def tiny_options(**changes) -> QuantizerOptions:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return QuantizerOptions(
        **{
            "pictures": PictureOptions(count=8),
            "text": TextOptions(vocab_size=480, pictures=200),
            "vision": VisionSizes(hidden_size=32, intermediate_size=64, num_heads=2, depth=2),
            "book": BookSizes(num_embeddings=16, embed_dim=8),
            "probe_lm": ProbeLMOptions(model={"model_type": "llama", **sizes}),
            "features_first": 0,
            "evaluate_pictures": 8,
            **changes,
        }
    )


@pytest.fixture
def stage() -> QuantizerStage:
    return tiny_options().build(Processes(), 0)


def test_pairs_are_packed_with_the_answers_as_targets(stage):
    pairs = pack_pairs(QUESTIONS, stage.text)
    decode, end = stage.text.tokenizer.decode, stage.text.tokenizer.eos_id
    for row, expected in enumerate(QUESTIONS):
        targets = pairs.targets[row][pairs.targets[row] != IGNORED]
        assert decode(targets.tolist()).split() == [answer for _, answer in expected]
        assert (targets == end).sum() == len(expected)
        # Every target is the id that follows in its own pair.
        for place in (pairs.targets[row] != IGNORED).nonzero().flatten().tolist():
            assert pairs.ids[row, place + 1] == pairs.targets[row, place]
            assert pairs.pair[row, place + 1] == pairs.pair[row, place]
    assert pairs.position[0, pairs.pair[0] == 1].tolist() == list(range(int((pairs.pair[0] == 1).sum())))


def test_no_pair_sees_another_one(stage):
    pairs = pack_pairs(QUESTIONS, stage.text)
    allowed = pair_attention(pairs, 4)[0, 0]
    assert allowed[:4, :4].all() and not allowed[:4, 4:].any() and allowed[4:, :4].all()
    own = pairs.pair[0]
    for query in range(len(own)):
        for key in range(len(own)):
            assert allowed[4 + query, 4 + key] == (own[query] == own[key] and key <= query)
    # The answer to a question is the same whether it is asked alone or with others.
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        z = stage.vectors(images)
        together, _ = stage.answer(z, images, pairs)
        alone, _ = stage.answer(z[:1], images[:1], pack_pairs([[QUESTIONS[0][1]]], stage.text))
    first = int((pairs.targets[0] != IGNORED)[own == 0].sum())
    assert torch.allclose(together[first : first + len(alone)], alone, atol=1e-5)


def test_right_pairs_need_every_token_of_the_answer(stage):
    pairs = pack_pairs(QUESTIONS, stage.text)
    targets = pairs.targets[pairs.targets != IGNORED]
    logits = torch.nn.functional.one_hot(targets, 480).float()
    assert right_pairs(logits, pairs) == [[True, True], [True]]
    logits[0] = 0
    logits[0, (targets[0] + 1) % 480] = 1
    assert right_pairs(logits, pairs) == [[False, True], [True]]


def test_the_gradient_of_a_code_goes_straight_to_its_vector(stage):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pairs = pack_pairs(QUESTIONS, stage.text)
    z = stage.vectors(images).detach().requires_grad_()
    q, _ = stage.quantize(z, step=0, micro_batch=0)
    assert torch.allclose(q.detach() @ stage.book.T, stage.book[stage.codes(images)] @ stage.book.T, atol=1e-5)
    assert torch.allclose(stage.answer(q, images, pairs)[0], stage.answer(q.detach(), images, pairs)[0], atol=1e-5)
    through = torch.autograd.grad(stage.answer(q, images, pairs)[0].square().sum(), z)[0]
    direct = q.detach().requires_grad_()
    at_code = torch.autograd.grad(stage.answer(direct, images, pairs)[0].square().sum(), direct)[0]
    assert torch.allclose(through, at_code, atol=1e-4) and through.abs().max() > 0


def test_training_lowers_the_loss_and_the_export_gives_the_same_codes(tmp_path):
    options = tiny_options(features_first=10)
    stage = options.build(Processes(), 0)
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    loop = LoopOptions(steps=40, micro_batches=2, lr=3e-3, warmup=5, log_every=10, evaluate_every=40, tensorboard=False)
    result = run(stage, loop, tmp_path, 0)

    def mean_loss(state):
        stage.load_state_dict(state)
        with torch.no_grad():
            out = loss_of(stage, step=9)
        return out.total.item() / out.weight

    after = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    assert mean_loss(before) > 1.3 * mean_loss(after)
    assert 0 < result["metrics"]["usage"] <= 1 and result["metrics"]["perplexity"] >= 1

    stage.load_state_dict(after)
    exported = ImageTokenizer.from_pretrained(tmp_path / "model" / "image_tokenizer")
    pictures = stage.batches.sample(random.Random(1), 6)
    ours = stage.codes(to_images([picture.image for picture in pictures]))
    theirs = [exported.encode(Image.fromarray(picture.image)).codes for picture in pictures]
    assert [tuple(row) for row in ours.tolist()] == theirs


def test_a_resumed_run_gives_the_same_codebook(tmp_path):
    loop = LoopOptions(steps=12, lr=1e-3, warmup=2, log_every=4, tensorboard=False)
    options = tiny_options(features_first=4)
    whole, parts = options.build(Processes(), 0), options.build(Processes(), 0)
    run(whole, loop, tmp_path / "whole", 0)
    run(parts, loop, tmp_path / "parts", 0, stop_after=6)
    resumed = options.build(Processes(), 1)
    run(resumed, loop, tmp_path / "parts", 0)
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name], atol=1e-6), name
