"""Logits -> a token and a confidence at every position: greedy, or sampled.

A sampled token needs one uniform number per position, drawn by the caller for every position of the block, open or
not. So the stream of the generator does not depend on which positions are open, nor on how the logits were
computed. The random confidence takes one more, drawn in the same way.
Axes: N positions, V vocabulary (or the part of it that may be chosen).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from llada_uni.backbone import forms
from llada_uni.backbone.native import products

LEAST = 1e-6  # a temperature or top_p below it counts as this one: smaller ones leave the range of float32


class Picked(NamedTuple):
    """What `pick` chose, [N] each: token (int64), how certain it is, and the probability of the likeliest token."""

    choice: Tensor
    confidence: Tensor
    likeliest: Tensor


class Judged(NamedTuple):
    """What `judge` found, [N] each: the likeliest token (int64), its probability, and that of the token that stands."""

    rival: Tensor
    certainty: Tensor
    own: Tensor


def judge(logits: Tensor, standing: Tensor, forbidden: int | None = None) -> Judged:
    """The model's opinion on tokens that stand: logits [N, V], standing [N] (any index where a mask stands).

    It is that of the logits as they are, whatever the sampling: a sample is not replaced for being one.
    forbidden: a choice that is never made.
    """
    shares = logits.softmax(-1)
    own = shares.gather(-1, standing.unsqueeze(-1)).squeeze(-1)
    if forbidden is not None:
        shares[:, forbidden] = -1.0
    certainty, rival = shares.max(-1)
    return Judged(rival, certainty, own)


def pick(
    logits: Tensor,
    uniform: Tensor | None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    forbidden: int | None = None,
    kind: str = "probability",
    noise: Tensor | None = None,
) -> Picked:
    """Choose a token at every position from logits [N, V].

    uniform: [N] in [0, 1), where the temperature is above 0. noise: [N], the confidences of the kind "random".
    Sampling: temperature, then the top_k best, then the smallest set of best ones whose probabilities sum to
    at least top_p. forbidden: a choice that is never made.
    kind of the confidence, in the distribution that the token was drawn from: "probability" of the choice; "margin"
    between the two best; "entropy": exp(-H), H the entropy in nats, which is 1 where the model is certain, like the
    others; "neg_entropy": 1 - H / ln V, which ranks as "entropy" does; "random": the noise. The released names are
    low_confidence, top_k_margin, neg_entropy, random.
    Greedy: the distribution still has the forbidden token in it. On a CPU what is compiled goes through the logits once for the
    choice and once for its probability, and writes nothing between.
    """
    if kind == "random" and noise is None:
        raise ValueError("the confidence 'random' needs random numbers")
    if temperature == 0:
        if kind == "probability" and logits.shape[-1] > 1 and forms.is_native(logits):
            choice, probability = products.greedy(logits, forbidden)
            return Picked(choice, probability, probability)
        shares = logits.softmax(-1)
        if forbidden is not None:
            shares[:, forbidden] = -1.0
        probability, choice = shares.max(-1)
        return Picked(choice, confidence_of(kind, probability, shares, logits.shape[-1], noise), probability)
    assert uniform is not None, "sampling needs uniform numbers"
    size = logits.shape[-1]
    logits = logits / max(temperature, LEAST)
    if forbidden is not None:
        logits[:, forbidden] = float("-inf")
    order = None
    if 0 < top_k < logits.shape[-1]:
        logits, order = logits.topk(top_k, dim=-1)
    elif top_p < 1:
        logits, order = logits.sort(dim=-1, descending=True, stable=True)
    shares = logits.softmax(-1)
    if top_p < 1:
        before = shares.cumsum(-1) - shares
        shares = shares.masked_fill(before >= max(top_p, LEAST), 0.0)
        shares = shares / shares.sum(-1, keepdim=True)
    edges = shares.cumsum(-1)
    # Rounding may leave the last edge below 1, or a draw on an edge: never land behind it, or on no share.
    draw = uniform.to(edges).unsqueeze(-1) * edges[:, -1:]
    index = torch.searchsorted(edges, draw, right=True)
    last = torch.searchsorted(edges, edges[:, -1:].contiguous())  # the first index where the sum is complete
    index = torch.minimum(index, last)
    confidence = confidence_of(kind, shares.gather(-1, index).squeeze(-1), shares, size, noise)
    choice = index if order is None else order.gather(-1, index)
    return Picked(choice.squeeze(-1), confidence, shares.amax(-1))


def confidence_of(kind: str, probability: Tensor, shares: Tensor, size: int, noise: Tensor | None) -> Tensor:
    """The confidence of a kind, [N]: probability [N] is that of the choice, shares [N, V'] are all, below 0 where
    forbidden; size: V, the tokens there are to choose from.
    """
    if kind == "probability":
        return probability
    if kind == "random":
        assert noise is not None
        return noise.to(probability)
    if kind in ("entropy", "neg_entropy"):
        entropy = torch.special.entr(shares.clamp(min=0)).sum(-1)
        return entropy.neg().exp() if kind == "entropy" else 1 - entropy / math.log(max(size, 2))
    best = shares.topk(min(2, shares.shape[-1]), dim=-1).values.clamp(min=0)
    return best[:, 0] - best[:, 1] if best.shape[1] == 2 else best[:, 0]
