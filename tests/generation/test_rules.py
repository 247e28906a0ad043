"""The pure rules: quotas, acceptance, guidance, choosing a token."""

from __future__ import annotations

import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.generation.guidance import Guidance, combine
from llada_uni.generation.sampling import pick
from llada_uni.generation.unmasking import accept, quota


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


@pytest.mark.parametrize("call", [lambda: Guidance("none"), lambda: Guidance.simple(2.0, rescale=1.5)])
def test_impossible_guidance(call):
    with pytest.raises(UserError, match="allowed"):
        call()


def test_greedy_choice_and_its_probability():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    choice, confidence = pick(logits.clone(), None)
    assert choice.tolist() == [1, 2]
    assert torch.allclose(confidence, logits.softmax(-1).max(-1).values)
    choice, confidence = pick(logits.clone(), None, forbidden=1)
    assert choice.tolist() == [2, 2]
    assert torch.allclose(confidence, logits.softmax(-1)[:, 2])


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
    choice, confidence = pick(logits, uniform, temperature=1.0, **options)
    shares = torch.bincount(choice, minlength=4) / draws
    assert torch.allclose(shares, torch.tensor(expected, dtype=torch.float32), atol=1e-3)
    assert torch.allclose(confidence, torch.tensor(expected, dtype=torch.float32)[choice], atol=1e-4)


def test_temperature_sharpens_and_the_ends_of_the_draw_are_safe():
    logits = torch.tensor([[0.0, 1.0, float("-inf")]]).expand(2, 3).clone()
    uniform = torch.tensor([0.0, 1.0 - 2**-24])
    choice, confidence = pick(logits, uniform, temperature=0.5)
    assert choice.tolist() == [0, 1]
    assert torch.allclose(confidence, torch.tensor([0.0, 2.0]).softmax(-1))
