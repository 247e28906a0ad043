"""Which proposals become final in a step: several rules behind one function.

Confidences of the open positions of a block -> the accepted ones. A block has few positions, so these are plain lists.
Whatever the rule, a step accepts a least number of proposals, so that a block is finished after its last step.

rule         accepted                                                             at least
"threshold"  all above the threshold (released configuration)                     an even share of the block
"left"       all above the threshold, and where they are too few the open         an even share of the block
             positions furthest to the left: sentences of several forms are
             begun, not joined
"adaptive"   all above the threshold (SPRINT, arXiv:2604.20796)                    masks left / steps left
"entropy"    by rising entropy, while the entropies of all but the largest of      masks left / steps left
             them sum to at most the threshold, in nats (arXiv:2505.24857)
"factor"     the n best, n the largest number with (n + 1) (1 - c_n) below the     masks left / steps left
             threshold, c_n the least confidence among them (arXiv:2505.22618)
"sprint"     the most certain ones, and all whose likeliest token has a            masks left / steps left
             probability above the threshold, whatever the confidence measures
             (released code, with SPRINT)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

RULES = {  # rule -> the measure of certainty that is its own (generation/sampling.py)
    "threshold": "probability",
    "left": "probability",
    "adaptive": "probability",
    "entropy": "entropy",
    "factor": "probability",
    "sprint": "probability",
}
OWN_MEASURE_ONLY = ("entropy",)  # rules that work with no other measure


def quota(block_length: int, steps: int, step: int) -> int:
    """Tokens that step `step` (from 0) accepts at least: the block divided evenly, early steps taking the rest."""
    return block_length // steps + (step < block_length % steps)


def accept(
    rule: str,
    confidence: Sequence[float],
    threshold: float,
    block_length: int,
    steps: int,
    step: int,
    likeliest: Sequence[float] | None = None,
) -> list[int]:
    """Indices of the accepted proposals, in order; of equal confidences the earlier position goes first.

    confidence: of every open position of the block, of the kind the settings name (see `sampling.pick`); the rule
    "entropy" needs the kind "entropy". step: number of this step in its block, from 0, of `steps`. likeliest: for the
    rule "sprint", the probability of the likeliest token at each; None: the confidence is that.
    """
    ranked = sorted(range(len(confidence)), key=lambda i: -confidence[i])
    if rule == "left":
        ranked.sort(key=lambda i: (confidence[i] <= threshold, i))
    if rule in ("threshold", "left"):
        least = quota(block_length, steps, step)
    else:
        least = -(-len(confidence) // (steps - step))
    if rule == "sprint":
        sure = {i for i, value in enumerate(confidence if likeliest is None else likeliest) if value > threshold}
        return sorted(sure.union(ranked[:least]))
    if rule == "entropy":
        count = _entropy_bounded([confidence[i] for i in ranked], threshold)
    elif rule == "factor":
        count = _factor([confidence[i] for i in ranked], threshold)
    else:
        count = sum(value > threshold for value in confidence)
    return sorted(ranked[: max(count, least)])


def _entropy_bounded(falling: Sequence[float], bound: float) -> int:
    """How many of the proposals, given as exp(-entropy) from the most certain on, share few enough nats.

    The entropy of all but the least certain bounds what drawing them independently can lose.
    """
    spent = 0.0
    for count, value in enumerate(falling):
        if spent > bound:
            return count
        spent -= math.log(max(value, 1e-38))
    return len(falling)


def _factor(falling: Sequence[float], factor: float) -> int:
    """The largest n for which (n + 1) times the doubt about the n-th best proposal stays below the factor."""
    return max((n for n, value in enumerate(falling, 1) if (n + 1) * (1 - value) < factor), default=0)
