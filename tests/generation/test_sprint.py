"""SPRINT's choice of places, and that it changes nothing where nothing is pruned. (That the engine prunes as the oracle
does is part of the random settings of test_engine.)"""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.generation import engine
from llada_uni.generation.settings import Guidance, Settings, Sprint
from llada_uni.generation.sprint import kept_places, key_norms, likeliest
from tests.backbone.helpers import small_config

NORMS = torch.tensor([4.0, 1.0, 3.0, 2.0, 5.0, 3.0])  # mean 3
CONFIDENCE = torch.tensor([0.1, 0.9, 0.5, 1.0, 0.2, 0.5])
IMAGE = torch.tensor([False, False, False, True, True, True])


@pytest.mark.parametrize(
    ("sprint", "kept"),
    [
        (Sprint(r=0.5, alpha=1.0), [0, 2, 4]),  # by the norm: 4 > 0 > 2 = 5, the earlier one first
        (Sprint(r=0.5, alpha=0.0), [1, 2, 3]),  # by the confidence: 3 > 1 > 2 = 5
        (Sprint(r=0.5), [2, 3, 4]),  # scores 0.717, 0.617, 0.75, 0.833, 0.933, 0.75
        (Sprint(r_text=1.0, r_img=0.5), [0, 1, 2, 4]),  # floor(0.5 * 3) = 1 image place
        (Sprint(r_text=0.4, r_img=0.0), [2]),
        (Sprint(r=0.7, r_img=0.0, alpha=0.0), [1, 2]),  # the other modality has the global share
        (Sprint(r=0.0), []),
        (Sprint(r=1.0), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_best_places_are_kept(sprint, kept):
    assert kept_places(NORMS, CONFIDENCE, IMAGE, sprint).tolist() == kept


def test_an_empty_prefix_keeps_nothing():
    empty = torch.empty(0)
    for sprint in (Sprint(), Sprint(r_text=0.5)):
        assert kept_places(empty, empty, empty.bool(), sprint).tolist() == []


def test_norms_and_confidences_by_their_definitions():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(2, 5, 4, generator=generator)
    assert torch.allclose(key_norms(keys), torch.stack([keys[:, p].norm() for p in range(5)]))
    assert key_norms(keys.bfloat16()).dtype == torch.float32
    logits = torch.randn(5, 9, generator=generator)
    assert torch.allclose(likeliest(logits), logits.softmax(-1).amax(-1))


@pytest.mark.parametrize("guidance", [None, Guidance.simple(2.0), Guidance.editing(3.0, 1.0, 0.5)])
def test_shares_of_one_give_exactly_the_plain_result(guidance):
    model = Backbone(small_config(initializer_range=0.6)).eval()
    branches = {"uncond": [1, 2], "no_text": [3, 4, 5], "no_image": [6]}
    results = []
    for sprint in (None, Sprint(r=1.0), Sprint(r_text=1.0, r_img=1.0)):
        settings = Settings(mask_id=39, block_length=4, steps=4, gen_length=24, guidance=guidance, sprint=sprint)
        results.append(engine.generate(model, list(range(20)), settings, branches))
    assert results[0] == results[1] == results[2]


def test_pruning_changes_what_later_steps_see():
    model = Backbone(small_config(initializer_range=0.6)).eval()
    settings = Settings(mask_id=39, block_length=8, steps=8, gen_length=24, threshold=1.0)
    pruned = Settings(mask_id=39, block_length=8, steps=8, gen_length=24, threshold=1.0, sprint=Sprint(r=0.1))
    prompt = list(range(24))
    assert engine.generate(model, prompt, settings).tokens != engine.generate(model, prompt, pruned).tokens


@pytest.mark.parametrize("changes", [{"r": 1.5}, {"r_text": -0.1}, {"r_img": 2}, {"alpha": float("nan")}])
def test_impossible_shares(changes):
    with pytest.raises(UserError, match="must be a number from 0 to 1"):
        Sprint(**changes)
