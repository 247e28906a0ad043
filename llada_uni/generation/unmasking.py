"""Which proposals a step accepts: a table of rules, each one short function.

Confidences of the open positions of a block -> the accepted ones. A block has few positions, so these are plain lists.
Whatever the rule, a step accepts a least number of proposals, so that a block is finished after its last step: for the rules
of the released configuration an even share of the block (`quota`), for the others masks left / steps left (`Step.share`).
To add a rule, write its function and put it into `RULES`; every door then offers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Step:
    """What a rule sees of the open positions of a block in one step.

    confidence: how sure the proposal of each is, by the measure of the settings (`sampling.pick`). threshold: the bound of the
    settings, which each rule reads in its own way. step: number of this step in its block, from 0, of `steps`. likeliest: the
    probability of the likeliest token at each position; None: the confidence is that.
    """

    confidence: Sequence[float]
    threshold: float
    block_length: int
    steps: int
    step: int
    likeliest: Sequence[float] | None = None

    @cached_property
    def ranked(self) -> list[int]:
        """Indices from the surest proposal on; of equal ones the earlier position goes first."""
        return sorted(range(len(self.confidence)), key=lambda i: -self.confidence[i])

    @property
    def share(self) -> int:
        """Masks left over steps left, rounded up."""
        return -(-len(self.confidence) // (self.steps - self.step))

    @property
    def quota(self) -> int:
        return quota(self.block_length, self.steps, self.step)

    @property
    def sure(self) -> int:
        """How many proposals are above the threshold."""
        return sum(value > self.threshold for value in self.confidence)


@dataclass(frozen=True)
class Rule:
    """accept: the indices that a step accepts, in any order. measure: the rule's own measure of certainty, used where the
    settings name none (generation/sampling.py). own_measure_only: the rule means nothing with another one."""

    accept: Callable[[Step], Iterable[int]]
    measure: str = "probability"
    own_measure_only: bool = False


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
    """Indices of the proposals that the rule of this name accepts, rising. The arguments are the fields of `Step`."""
    return sorted(RULES[rule].accept(Step(confidence, threshold, block_length, steps, step, likeliest)))


# --- the rules ---


def _threshold(now: Step) -> list[int]:
    """All above the threshold (released configuration)."""
    return now.ranked[: max(now.sure, now.quota)]


def _left(now: Step) -> list[int]:
    """All above the threshold; where they are too few, the open positions furthest to the left.

    So a sentence that could take several forms is begun with one of them, and not put together from all.
    """
    by_place = sorted(range(len(now.confidence)), key=lambda i: (now.confidence[i] <= now.threshold, i))
    return by_place[: max(now.sure, now.quota)]


def _adaptive(now: Step) -> list[int]:
    """All above the threshold, and at least masks left / steps left (SPRINT, arXiv:2604.20796)."""
    return now.ranked[: max(now.sure, now.share)]


def _entropy(now: Step) -> list[int]:
    """By rising entropy, while the entropies of all but the largest sum to at most the threshold, in nats (arXiv:2505.24857).

    The entropy of all but the least certain bounds what drawing them independently can lose. The confidence is exp(-entropy).
    """
    spent, count = 0.0, 0
    for i in now.ranked:
        if spent > now.threshold:
            break
        spent -= math.log(max(now.confidence[i], 1e-38))
        count += 1
    return now.ranked[: max(count, now.share)]


def _factor(now: Step) -> list[int]:
    """The n surest, n the largest number with (n + 1) (1 - c_n) below the threshold, c_n the least one (arXiv:2505.22618)."""
    falling = enumerate((now.confidence[i] for i in now.ranked), 1)
    count = max((n for n, value in falling if (n + 1) * (1 - value) < now.threshold), default=0)
    return now.ranked[: max(count, now.share)]


def _sprint(now: Step) -> set[int]:
    """The surest masks left / steps left, and all whose likeliest token has a probability above the threshold, whatever the
    confidence measures (released code, with SPRINT)."""
    likeliest = now.confidence if now.likeliest is None else now.likeliest
    return {i for i, value in enumerate(likeliest) if value > now.threshold}.union(now.ranked[: now.share])


RULES = {
    "threshold": Rule(_threshold),
    "left": Rule(_left),
    "adaptive": Rule(_adaptive),
    "entropy": Rule(_entropy, measure="entropy", own_measure_only=True),
    "factor": Rule(_factor),
    "sprint": Rule(_sprint),
}
