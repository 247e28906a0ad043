"""What a step does to the open block: a table of rules, each one or two short functions.

Proposals and probabilities of the block's positions -> `decide` -> {position: token or MASK}. A rule accepts proposals for
masks, and may edit tokens that stand: a token of the open block may change until its block ends (generation/corrections.py
says when that is). Finished blocks never change. A block has few positions, so these are plain lists.
Whatever the rule, a step accepts a least number of proposals, so that a block is filled after its last step: for the rules
of the released configuration an even share of the block (`quota`), for the others masks left / steps left (`Step.share`).
To add a rule, write its functions and put it into `RULES`; every door then offers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

MASK = -1  # in place of a token: the position holds, or is to hold, the mask
# Two thresholds of the rule "t2t" by name: to fill a mask, to replace a token (LLaDA2.1 technical report).
PRESETS = {"conservative": (0.95, 0.9), "quality": (0.7, 0.5), "speed": (0.5, 0.0)}


@dataclass(frozen=True)
class Step:
    """What a rule sees in one step: an entry for every position of the open block that it may change, from left to right.

    These are the masks, and for rules that edit also the tokens that were generated in this block.
    confidence: how sure the proposal of each is, by the measure of the settings (`sampling.pick`). threshold: the bound of the
    settings, which each rule reads in its own way. step: number of this step in its block, from 0, of `steps`. likeliest: the
    probability of the likeliest token at each position; None: the confidence is that. proposals: the token proposed for each.

    For rules that edit, besides (`sampling.judge`): tokens: what stands at each position, or MASK; rivals, certainty: the
    likeliest token, sampling aside, and its probability; own: the probability of what stands; edit_threshold: the bound for
    tokens that stand; budget: how many of them may still become masks again in this block.
    """

    confidence: Sequence[float]
    threshold: float
    block_length: int
    steps: int
    step: int
    likeliest: Sequence[float] | None = None
    proposals: Sequence[int] = ()
    tokens: Sequence[int] = ()
    rivals: Sequence[int] = ()
    certainty: Sequence[float] = ()
    own: Sequence[float] = ()
    edit_threshold: float = 0.0
    budget: int = 0

    def shown(self, i: int, changes: Mapping[int, int]) -> tuple[int, float]:
        """The token to show for an entry after these changes, and how sure it is: what stands then, else the proposal."""
        token = changes.get(i, self.tokens[i])
        if self.tokens[i] == MASK or token == MASK:
            return self.proposals[i], self.confidence[i]
        return token, self.certainty[i] if i in changes else self.own[i]

    @cached_property
    def ranked(self) -> list[int]:
        """Indices from the surest proposal on; of equal ones the earlier position goes first."""
        return sorted(range(len(self.confidence)), key=lambda i: -self.confidence[i])

    @property
    def share(self) -> int:
        """Masks left over steps left, rounded up; all of them once the steps are used up."""
        return -(-len(self.confidence) // max(1, self.steps - self.step))

    @property
    def quota(self) -> int:
        return quota(self.block_length, self.steps, self.step)

    @property
    def sure(self) -> int:
        """How many proposals are above the threshold."""
        return sum(value > self.threshold for value in self.confidence)


@dataclass(frozen=True)
class Rule:
    """accept: of a step that shows the masks alone, the indices it accepts, in any order. edit: of a step that shows all
    positions, {index: token or MASK} for some of those that hold a token; None: what stands, stays. measure: the rule's own
    measure of certainty, used where the settings name none (generation/sampling.py). own_measure_only: the rule means nothing
    with another one. edit_threshold: the bound for tokens that stand where the settings have none. budgeted: whether its
    edits are counted against the budget, and end with it."""

    accept: Callable[[Step], Iterable[int]]
    edit: Callable[[Step], Mapping[int, int]] | None = None
    measure: str = "probability"
    own_measure_only: bool = False
    edit_threshold: float = 0.0
    budgeted: bool = False

    @property
    def edits(self) -> bool:
        """Whether the rule may change tokens that stand."""
        return self.edit is not None


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


def decide(rule: str, now: Step) -> dict[int, int]:
    """What the rule of this name does to the open block: {index of the step's entries: token or MASK}; others stay.

    Every position that is named changes: no token is replaced by itself.
    """
    edit = RULES[rule].edit
    if edit is None:
        return {i: now.proposals[i] for i in sorted(RULES[rule].accept(now))}
    masks = [i for i, token in enumerate(now.tokens) if token == MASK]
    confidence = [now.confidence[i] for i in masks]
    likeliest = None if now.likeliest is None else [now.likeliest[i] for i in masks]
    accepted = accept(rule, confidence, now.threshold, now.block_length, now.steps, now.step, likeliest) if masks else []
    return {masks[i]: now.proposals[masks[i]] for i in accepted} | dict(edit(now))


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


def _replaced(now: Step) -> dict[int, int]:
    """Token to token: the likeliest token takes the place of another one where it is surer than the edit threshold
    (LLaDA2.1 technical report)."""
    entries = enumerate(zip(now.tokens, now.rivals, now.certainty, strict=True))
    return {i: rival for i, (token, rival, p) in entries if token not in (MASK, rival) and p > now.edit_threshold}


def _taken_back(now: Step) -> dict[int, int]:
    """Token to mask: tokens whose own probability is below the edit threshold become masks again, the least probable ones
    first, as many as the budget allows (arXiv:2604.18738)."""
    doubtful = [i for i, token in enumerate(now.tokens) if token != MASK and now.own[i] < now.edit_threshold]
    return dict.fromkeys(sorted(doubtful, key=lambda i: now.own[i])[: now.budget], MASK)


RULES = {
    "threshold": Rule(_threshold),
    "left": Rule(_left),
    "adaptive": Rule(_adaptive),
    "entropy": Rule(_entropy, measure="entropy", own_measure_only=True),
    "factor": Rule(_factor),
    "sprint": Rule(_sprint),
    "t2t": Rule(_adaptive, _replaced, edit_threshold=PRESETS["quality"][1]),
    "t2m": Rule(_adaptive, _taken_back, edit_threshold=0.3, budgeted=True),
}
