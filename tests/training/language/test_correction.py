"""Training for correction: which masks are filled, with what, and that the loss is that of the batch so filled."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from llada_uni.data.masking import MaskingOptions
from llada_uni.errors import UserError
from llada_uni.training.language.correction import CorrectionOptions, correction_metrics, fill_with_own
from llada_uni.training.language.lora import LoraOptions
from llada_uni.training.language.losses import cross_entropy
from llada_uni.training.loop.prefetch import draw
from tests.training.helpers.runs import loss_of
from tests.training.language.test_stage import build, train
from tests.training.token_folder import make_token_folder

PARTS = ((0, ("mended", "kept")), (1, ("own_errors",)))
"""Sums of right positions, and counts of all that were filled, among `correction_metrics`."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return make_token_folder(tmp_path_factory.mktemp("tokens"))


def fill(stage, drawn, **how):
    drawn.seed_global()
    batch = drawn.batch
    return fill_with_own(stage.model, batch.packed, batch.at, stage.text.mask_id, 7, CorrectionOptions(**how))


def test_masks_are_filled_with_the_argmax_of_the_network(tokens):
    stage = build(tokens)
    drawn = draw(stage, 0, 0, 0)
    batch = drawn.batch
    packed, filled = fill(stage, drawn, share=1.0)
    assert 0.2 < filled.float().mean() < 0.8
    logits = stage.model(batch.packed.ids, batch.packed.positions, batch.packed.mask(), logits_at=batch.at)
    logits[:, stage.text.mask_id] = float("-inf")
    before, after = batch.packed.ids.flatten(), packed.ids.flatten()
    assert torch.equal(after[batch.at][filled], logits.argmax(-1)[filled])
    untouched = torch.ones_like(before, dtype=torch.bool)
    untouched[batch.at[filled]] = False
    assert torch.equal(after[untouched], before[untouched])
    again = fill(stage, drawn, share=1.0)
    assert torch.equal(again[0].ids, packed.ids) and torch.equal(again[1], filled)
    assert stage.model.training


def test_shares_of_views_and_of_their_masks(tokens):
    stage = build(tokens)
    drawn = draw(stage, 0, 0, 0)
    assert not fill(stage, drawn, share=0.0)[1].any()
    everything = fill(stage, drawn, share=1.0, least=1.0)
    assert everything[1].all()
    assert (everything[0].ids != stage.text.mask_id).all()
    half = fill(stage, drawn, share=0.5, least=1.0)[1]
    batch = drawn.batch
    views = batch.packed.segments.flatten()[batch.at] * 1000 + batch.packed.views.flatten()[batch.at]
    shares = torch.stack([half[views == view].float().mean() for view in views.unique()])
    assert set(shares.tolist()) == {0.0, 1.0}  # whole views


def test_a_second_turn_proposes_from_what_the_first_filled_in(tokens):
    stage = build(tokens)
    drawn = draw(stage, 0, 0, 0)
    one, filled = fill(stage, drawn, share=1.0)
    two, same = fill(stage, drawn, share=1.0, turns=2)
    assert torch.equal(same, filled)
    at = drawn.batch.at[filled]
    logits = stage.model(one.ids, one.positions, one.mask(), logits_at=at)
    logits[:, stage.text.mask_id] = float("-inf")
    assert torch.equal(two.ids.flatten()[at], logits.argmax(-1))


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2, alpha=4)])
def test_the_loss_is_that_of_the_filled_batch(tokens, lora):
    stage = build(tokens, correction=CorrectionOptions(share=1.0), lora=lora)
    drawn = draw(stage, 0, 0, 0)
    batch, (packed, filled) = drawn.batch, fill(stage, drawn, share=1.0)
    drawn.seed_global()
    loss = stage.loss(batch)
    hidden = stage.model.hidden(packed.ids, packed.positions, packed.mask(), only=batch.at)
    losses, right = cross_entropy(stage.model.logits(hidden), batch.targets)
    torch.testing.assert_close(loss.total, (losses * batch.weights).sum())
    stood = packed.ids.flatten()[batch.at]
    wanted = correction_metrics(filled, stood, batch.targets, right)
    assert {name: tuple(map(int, pair)) for name, pair in wanted.items()} == {
        name: tuple(map(int, loss.metrics[name])) for name in ("own_errors", "mended", "kept")
    }


def test_it_learns_what_belongs_where_something_stands(tokens, tmp_path):
    """After the same steps, the network that met its own proposals is more often right about positions that hold them."""
    masking = MaskingOptions(block=8, everything=0.3)
    right = {}
    for name, correction in (("with", CorrectionOptions(share=0.7)), ("without", None)):
        stage = build(tokens, masking=masking, weighting="none", correction=correction)
        train(stage, tmp_path / name, 100)
        stage.options = dataclasses.replace(stage.options, correction=CorrectionOptions(share=1.0, least=0.5))
        found = [loss_of(stage, step).metrics for step in range(900, 906)]
        good, filled = (sum(int(m[key][at]) for m in found for key in keys) for at, keys in PARTS)
        right[name] = good / filled
    assert right["with"] > right["without"] + 0.05


def test_mistakes():
    with pytest.raises(UserError, match=r"share is 1\.5; allowed: 0 to 1"):
        CorrectionOptions(share=1.5)
    with pytest.raises(UserError, match=r"least is 0\.9 and most 0\.2"):
        CorrectionOptions(least=0.9, most=0.2)
