"""Logits -> a token and a confidence at every place: greedy, or sampled.

A sampled token needs one uniform number a place, drawn by the caller for every place of the block, open or
not. So the stream of the generator does not depend on which places are open, nor on how the logits were
computed.
Axes: N places, V vocabulary (or the part of it that may be chosen).
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-6  # a temperature or top_p below it counts as this one: smaller ones leave the range of float32


def pick(
    logits: Tensor,
    uniform: Tensor | None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    forbidden: int | None = None,
    kind: str = "probability",
) -> tuple[Tensor, Tensor]:
    """logits [N, V] -> (choice [N] int64, confidence [N]); uniform [N] in [0, 1) where the temperature is
    above 0.

    Sampling: temperature, then the top_k best, then the smallest set of best ones whose probabilities sum to
    at least top_p. forbidden: a choice that is never made.
    kind of the confidence: "probability" of the choice, among those it was drawn from; "margin" between the two
    best; "entropy": the negative entropy, as exp(-entropy), which is 1 for a certain place like the others.
    Greedy: the confidence is taken from the distribution with the forbidden one still in it.
    """
    if temperature == 0:
        shares = logits.softmax(-1)
        if forbidden is not None:
            shares[:, forbidden] = -1.0
        probability, choice = shares.max(-1)
        return choice, _confidence(kind, probability, shares)
    assert uniform is not None, "sampling needs uniform numbers"
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
    last = torch.searchsorted(edges, edges[:, -1:].contiguous())  # the first place where the sum is complete
    index = torch.minimum(index, last)
    confidence = _confidence(kind, shares.gather(-1, index).squeeze(-1), shares)
    choice = index if order is None else order.gather(-1, index)
    return choice.squeeze(-1), confidence


def _confidence(kind: str, probability: Tensor, shares: Tensor) -> Tensor:
    """The confidence of a kind, [N]: probability [N] is that of the choice, shares [N, V] are all, below 0 where
    forbidden.
    """
    if kind == "probability":
        return probability
    if kind == "entropy":
        return torch.special.entr(shares.clamp(min=0)).sum(-1).neg().exp()
    best = shares.topk(min(2, shares.shape[-1]), dim=-1).values.clamp(min=0)
    return best[:, 0] - best[:, 1] if best.shape[1] == 2 else best[:, 0]
