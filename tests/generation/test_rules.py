"""The pure rules: quotas, acceptance, guidance, choosing a token."""

from __future__ import annotations

import math

import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.generation.guidance import Guidance, combine
from llada_uni.generation.params import CONFIDENCES
from llada_uni.generation.sampling import pick
from llada_uni.generation.settings import Settings
from llada_uni.generation.unmasking import RULES, accept, quota


@pytest.mark.parametrize(("block", "steps"), [(32, 8), (32, 5), (8, 8), (4, 10), (7, 3)])
def test_quotas_sum_to_the_block_and_fall(block, steps):
    quotas = [quota(block, steps, s) for s in range(steps)]
    assert sum(quotas) == block and quotas == sorted(quotas, reverse=True) and quotas[0] - quotas[-1] <= 1


@pytest.mark.parametrize(
    ("confidence", "least", "threshold", "expected"),
    [
        ([0.1, 0.9, 0.5, 0.95], 1, 0.8, [1, 3]),
        ([0.1, 0.9, 0.5, 0.95], 3, 0.8, [1, 2, 3]),
        ([0.1, 0.9, 0.5], 2, 1.0, [1, 2]),
        ([0.5, 0.5, 0.5], 2, 0.9, [0, 1]),
        ([0.8], 4, 0.8, [0]),
        ([0.8, 0.1], 0, 0.8, []),
    ],
)
def test_acceptance(confidence, least, threshold, expected):
    assert accept("threshold", confidence, threshold, least * 4, 4, 0) == expected


@pytest.mark.parametrize(
    ("rule", "confidence", "threshold", "steps", "step", "expected"),
    [
        ("left", [0.1, 0.9, 0.5, 0.95], 0.8, 4, 0, [1, 3]),
        ("left", [0.1, 0.9, 0.5, 0.6], 0.95, 4, 0, [0]),  # none is sure: the first, not the likeliest
        ("left", [0.1, 0.9, 0.5, 0.97], 0.95, 2, 0, [0, 3]),  # two at least: the sure one, and then the first
        ("adaptive", [0.1, 0.9, 0.5, 0.95], 0.8, 4, 0, [1, 3]),
        ("adaptive", [0.1, 0.9, 0.5], 0.95, 4, 2, [1, 2]),  # 3 masks, 2 steps left: 2 of them
        ("adaptive", [0.1, 0.2, 0.3], 0.95, 4, 3, [0, 1, 2]),
        # (n + 1) (1 - c_n): 0.02, 0.15, 0.8
        ("factor", [0.8, 0.99, 0.95], 0.5, 32, 0, [1, 2]),
        ("factor", [0.8, 0.99, 0.95], 0.9, 32, 0, [0, 1, 2]),
        ("factor", [0.8, 0.99, 0.95], 0.01, 32, 0, [1]),
        # nats 0.1, 0.2, 0.4, 1: all but the largest of the first n sum to 0, 0.1, 0.3, 0.7
        ("entropy", [0.2, 1.0, 0.1, 0.4], 0.05, 32, 0, [2]),
        ("entropy", [0.2, 1.0, 0.1, 0.4], 0.15, 32, 0, [0, 2]),
        ("entropy", [0.2, 1.0, 0.1, 0.4], 0.35, 32, 0, [0, 2, 3]),
        ("entropy", [0.2, 1.0, 0.1, 0.4], 0.75, 32, 0, [0, 1, 2, 3]),
        ("entropy", [0.2, 1.0, 0.1, 0.4], 0.05, 2, 0, [0, 2]),
    ],
)
def test_other_rules(rule, confidence, threshold, steps, step, expected):
    if rule == "entropy":
        confidence = [math.exp(-nats) for nats in confidence]
    assert accept(rule, confidence, threshold, 4, steps, step) == expected


def test_the_sprint_rule_ranks_by_one_measure_and_is_sure_by_another():
    confidence, likely = [0.1, 0.9, 0.5, 0.3], [0.99, 0.2, 0.3, 0.4]
    assert accept("sprint", confidence, 0.95, 4, 4, 0, likely) == [0, 1]  # one of 4 masks in 4 steps, and the sure one
    assert accept("sprint", confidence, 0.95, 4, 4, 2, likely) == [0, 1, 2]  # 2 steps are left: two of them
    assert accept("sprint", confidence, 0.99, 4, 4, 0, likely) == [1]  # above, not at
    assert accept("sprint", confidence[:3], 1.0, 4, 5, 3, likely[:3]) == [1, 2]  # ceil(3 / 2)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_finishes_a_block_in_its_steps(rule):
    for steps in (1, 3, 5, 8, 20):
        masks = 8
        for step in range(steps):
            if masks:
                masks -= len(accept(rule, [0.01] * masks, 1e-6 if rule == "entropy" else 0.9, 8, steps, step))
        assert masks == 0


def test_an_impossible_certainty_is_no_error():
    assert accept("entropy", [0.0, 1.0], 0.5, 2, 2, 0) == [0, 1]


def test_guidance_by_its_formulas():
    c, n, i = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(0)).unbind()
    logits = torch.stack((c, n, i))
    assert torch.equal(combine(logits[:1], None), c)
    assert torch.allclose(combine(logits[:2], Guidance.simple(2.5)), n + 2.5 * (c - n))
    assert torch.allclose(combine(logits[:2], Guidance.editing(4.0, 0.0)), n + 4 * (c - n))
    g = n + 4 * (c - n) + 1.5 * (n - i)
    assert torch.allclose(combine(logits, Guidance.editing(4.0, 1.5)), g)
    rescaled = 0.7 * g * c.std(-1, keepdim=True) / g.std(-1, keepdim=True) + 0.3 * g
    assert torch.allclose(combine(logits, Guidance.editing(4.0, 1.5, 0.7)), rescaled)


def test_guidance_computes_no_branch_it_does_not_need():
    assert Guidance.simple(1.0).branches == () and Guidance.simple(2.0).branches == ("uncond",)
    assert Guidance.editing(1.0, 0.0).branches == ()
    assert Guidance.editing(4.0, 0.0).branches == ("no_text",)
    assert Guidance.editing(1.0, 1.5).branches == ("no_text", "no_image")
    assert Guidance.editing(0.0, 1.5).branches == ("no_text", "no_image")
    assert Guidance.editing(0.0, 0.0).branches == ()  # editing guidance is off


def test_both_scales_of_editing_0_are_no_guidance_at_all():
    c = torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(combine(c, Guidance.editing(0.0, 0.0, 0.7)), c[0])


def test_rescale_divides_by_the_deviation_and_a_millionth():
    given = torch.tensor([[[1.0, -1.0, 0.0]]])  # deviation 1
    other = torch.tensor([[[1e-6, -1e-6, 0.0]]])  # g = other: deviation a millionth, factor 1 / 2e-6
    guided = combine(torch.cat((given, other)), Guidance.simple(0.0, 1.0))
    assert guided.tolist()[0] == pytest.approx([0.5, -0.5, 0.0])


@pytest.mark.parametrize("call", [lambda: Guidance("none"), lambda: Guidance.simple(2.0, rescale=1.5)])
def test_impossible_guidance(call):
    with pytest.raises(UserError, match="allowed"):
        call()


def test_greedy_choice_and_its_probability():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    choice, confidence, _ = pick(logits.clone(), None)
    assert choice.tolist() == [1, 2]
    assert torch.allclose(confidence, logits.softmax(-1).max(-1).values)
    choice, confidence, _ = pick(logits.clone(), None, forbidden=1)
    assert choice.tolist() == [2, 2]
    assert torch.allclose(confidence, logits.softmax(-1)[:, 2])


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-300])
@pytest.mark.parametrize("top", [{}, {"top_k": 3}, {"top_p": 0.5}, {"top_p": 1e-300}])
def test_a_tiny_temperature_is_greedy(temperature, top):
    logits = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)) * 30
    choice, confidence, _ = pick(logits, torch.full((8,), 0.5), temperature, forbidden=0, **top)
    assert choice.tolist() == (logits[:, 1:].argmax(-1) + 1).tolist() and confidence.tolist() == [1.0] * 8


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_kinds_of_confidence(temperature):
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])
    noise = torch.tensor([0.3, 0.2, 0.1])
    picked = {kind: pick(shares.log(), torch.zeros(3), temperature, kind=kind, noise=noise) for kind in CONFIDENCES}
    measured = {kind: found.confidence.tolist() for kind, found in picked.items()}
    for found in picked.values():
        assert found.likeliest.tolist() == pytest.approx([0.7, 0.5, 1.0])
    drawn = [0.7, 0.25, 1.0] if temperature else [0.7, 0.5, 1.0]  # a draw of 0 takes the first possible choice
    assert measured["probability"] == pytest.approx(drawn)
    assert measured["margin"] == pytest.approx([0.5, 0.25, 1.0])
    entropies = [-sum(p * math.log(p) for p in row if p) for row in shares.tolist()]
    assert measured["entropy"] == pytest.approx([math.exp(-h) for h in entropies])
    assert measured["neg_entropy"] == pytest.approx([1 - h / math.log(3) for h in entropies], abs=1e-6)
    assert measured["random"] == pytest.approx(noise.tolist())
    with pytest.raises(ValueError, match="needs random numbers"):
        pick(shares.log(), None, kind="random")


def test_a_forbidden_choice_is_no_second_best():
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    assert pick(logits, None, forbidden=1, kind="margin")[1].item() == pytest.approx(0.5)
    assert pick(logits[:, :2], None, forbidden=1, kind="margin")[1].item() == pytest.approx(2 / 3)
    assert pick(logits[:, :1], None, kind="margin")[1].item() == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "best"}, "one of threshold, left, adaptive, entropy, factor, sprint"),
        ({"confidence": "best"}, "one of probability, margin, entropy, neg_entropy, random"),
        ({"rule": "entropy", "confidence": "probability"}, "allowed with the rule 'entropy': entropy"),
    ],
)
def test_impossible_rules(changes, message):
    with pytest.raises(UserError, match=message):
        Settings(mask_id=1, **changes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.6}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.71}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_k": 1}, [0, 0, 0, 1]),
        ({"forbidden": 3}, [1 / 6, 2 / 6, 3 / 6, 0]),
        ({"forbidden": 3, "top_k": 1}, [0, 0, 1, 0]),
    ],
)
def test_sampling_follows_the_filtered_distribution(options, expected):
    """Even draws over [0, 1) must land on each choice as often as its share says."""
    draws = 10_000
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(draws, 4).clone()
    uniform = (torch.arange(draws) + 0.5) / draws
    choice, confidence, _ = pick(logits, uniform, temperature=1.0, **options)
    shares = torch.bincount(choice, minlength=4) / draws
    assert torch.allclose(shares, torch.tensor(expected, dtype=torch.float32), atol=1e-3)
    assert torch.allclose(confidence, torch.tensor(expected, dtype=torch.float32)[choice], atol=1e-4)


def test_temperature_sharpens_and_the_ends_of_the_draw_are_safe():
    logits = torch.tensor([[0.0, 1.0, float("-inf")]]).expand(2, 3).clone()
    uniform = torch.tensor([0.0, 1.0 - 2**-24])
    choice, confidence, _ = pick(logits, uniform, temperature=0.5)
    assert choice.tolist() == [0, 1]
    assert torch.allclose(confidence, torch.tensor([0.0, 2.0]).softmax(-1))
