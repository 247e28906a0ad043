"""SPRINT's choice of positions in both forms, and that it changes nothing where nothing is pruned. (That the engine prunes
as the oracle does is part of the random settings of test_engine and test_released.)"""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.generation import engine
from llada_uni.generation.settings import Guidance, Settings, Sprint
from llada_uni.generation.sprint import choose_kept, key_norms, likeliest
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
def test_the_best_positions_are_kept(sprint, kept):
    assert choose_kept(NORMS[None, :, None], CONFIDENCE, IMAGE, sprint).tolist() == kept


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [0, 1, 2, 3]),  # text is pinned; then the confidence alone: 1.0 of position 3, though position 4 scores more
        ({"alpha": 1.0}, [0, 1, 2, 4]),  # pins, but with alpha 1 the norm ranks the others
        ({"keep_ratio": 0.3}, [0, 1, 2]),  # more are pinned than int(0.3 * 6) = 1
        ({"keep_ratio": 1.0}, [0, 1, 2, 3, 4, 5]),
        ({"text_keep_ratio": 1.0, "image_keep_ratio": 0.1}, [0, 1, 2, 3]),  # the ratios do nothing but pin
        ({"text_keep_ratio": 0.1}, [2, 3, 4, 5]),  # no pin: scores 0.717, 0.617, 0.75, 0.833, 0.933, 0.75
        ({"text_keep_ratio": 0.1, "keep_ratio": 0.5}, [2, 3, 4]),
        ({"text_keep_ratio": 0.1, "keep_ratio": 0.0}, [4]),  # at least one
        ({"text_keep_ratio": 0.1, "alpha": 0.0, "keep_ratio": 0.34}, [1, 3]),
        ({"text_keep_ratio": 0.1, "image_keep_ratio": 1.0}, [1, 3, 4, 5]),  # images pinned
        ({"image_keep_ratio": 1.0}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_published_form_keeps_pins_and_the_best(changes, kept):
    sprint = Sprint(**{"keep_ratio": 0.7, **changes})
    assert choose_kept(NORMS[None, :, None], CONFIDENCE, IMAGE, sprint).tolist() == kept
    assert not sprint.keeps_all or kept == [0, 1, 2, 3, 4, 5]


def test_heads_are_joined_by_their_mean_as_published_and_by_their_length_in_the_report():
    keys = torch.tensor([[[3.0], [5.0], [1.0]], [[3.0], [0.0], [1.0]]])  # means 3, 2.5, 1; lengths 4.2, 5, 1.4
    rest = (torch.zeros(3), torch.zeros(3, dtype=torch.bool))
    assert choose_kept(keys, *rest, Sprint(keep_ratio=0.4, text_keep_ratio=0.5, alpha=1.0)).tolist() == [0]
    assert choose_kept(keys, *rest, Sprint(r=0.4, alpha=1.0)).tolist() == [1]


def test_an_empty_prefix_keeps_nothing():
    keys, empty = torch.empty(2, 0, 4), torch.empty(0)
    for sprint in (Sprint(), Sprint(r_text=0.5), Sprint(keep_ratio=0.5), Sprint(keep_ratio=0.5, text_keep_ratio=0.5)):
        assert choose_kept(keys, empty, empty.bool(), sprint).tolist() == []


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
    published = [Sprint(keep_ratio=1.0), Sprint(keep_ratio=0.2, image_keep_ratio=1.0)]
    for sprint in (None, Sprint(r=1.0), Sprint(r_text=1.0, r_img=1.0), *published):
        settings = Settings(mask_id=39, block_length=4, steps=4, gen_length=24, guidance=guidance, sprint=sprint)
        results.append(engine.generate(model, list(range(20)), settings, branches))
    assert all(result == results[0] for result in results)


def test_the_published_form_is_left_out_while_editing_guidance_is_on():
    sprint = Sprint(keep_ratio=0.2, text_keep_ratio=0.5)
    on, off = Guidance.editing(3.0, 0.0, 0.7), Guidance.editing(0.0, 0.0, 0.7)
    for guidance, takes_part in ((on, False), (off, True), (Guidance.simple(2.0), True), (None, True)):
        settings = Settings(mask_id=39, guidance=guidance, sprint=sprint)
        assert settings.prunes == (sprint if takes_part else None)
        assert settings.unmasking == ("sprint" if takes_part else "threshold")
    assert Settings(mask_id=39, guidance=on, sprint=Sprint(r=0.2)).prunes == Sprint(r=0.2)  # the report's form stays
    assert Settings(mask_id=39, sprint=sprint, rule="left").unmasking == "left"


@pytest.mark.parametrize("warmup", [1, 2, 3])
def test_the_published_form_prunes_after_its_warm_up(warmup):
    """Until then a block is generated as without pruning."""
    model = Backbone(small_config(initializer_range=0.6)).eval()
    common = {"mask_id": 39, "block_length": 8, "steps": 8, "gen_length": 8, "threshold": 1.0, "rule": "sprint"}
    steps = []
    for sprint in (None, Sprint(keep_ratio=0.05, text_keep_ratio=0.0, warmup=warmup)):
        events = []
        engine.generate(model, list(range(24)), Settings(**common, sprint=sprint), on_step=events.append)
        steps.append([event.confidences for event in events])
    plain, pruned = steps
    assert plain[:warmup] == pruned[:warmup] and plain[warmup] != pruned[warmup]


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_ratio": 1.5}, "keep_ratio must be a number from 0 to 1, not 1.5"),
        ({"keep_ratio": 0.5, "warmup": 0}, "warmup must be a whole number from 1 to 4096, not 0"),
        ({"warmup": 1}, "warmup belongs to the published form: give keep_ratio too"),
        ({"text_keep_ratio": 1.0, "r": 0.5}, "text_keep_ratio belongs to the published form"),
        ({"keep_ratio": 0.5, "r_img": 0.5}, "r_img belongs to the report's form: leave keep_ratio out"),
    ],
)
def test_the_two_forms_are_not_mixed(changes, message):
    with pytest.raises(UserError, match=message):
        Sprint(**changes)
