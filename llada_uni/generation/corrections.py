"""When a block ends whose tokens may still be changed by a rule that edits (generation/unmasking.py).

Positions that hold no mask -> may the next step still change one of them? Rules that only fill are done as soon as no mask is
left; those that edit look again until a step changes nothing, or until the rounds or the budget of the settings are used up.
A block is `watched` as a whole, or, where the answer ends early, up to its first stop token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llada_uni.generation.settings import Settings
from llada_uni.generation.unmasking import MASK, RULES


class Corrections:
    """What has been corrected in one block so far. limit: the most steps the block may take.

    rounds: steps that began with no mask in what is watched. spent: tokens that became masks again. changed: positions that
    the last step changed. Positions are the caller's numbers.
    """

    def __init__(self, settings: Settings, steps: int) -> None:
        self.rule, self.most = RULES[settings.unmasking], settings.edit_rounds
        self.limit = steps + (settings.edit_rounds if self.rule.edits else 0)
        self._budget = settings.edit_budget
        self.rounds, self.spent = 0, 0
        self.changed: frozenset[int] = frozenset()

    def budget(self, step: int) -> int:
        """Tokens that may become masks again in this step; none in the last one, after which no mask may be left."""
        return 0 if step + 1 == self.limit else self._budget - self.spent

    def note(self, changes: Mapping[int, int], watched_was_full: bool) -> None:
        """Take what a step did: {position: token or MASK}."""
        self.rounds += watched_was_full
        self.spent += sum(token == MASK for token in changes.values())
        self.changed = frozenset(changes)

    def settled(self, watched: Iterable[int]) -> bool:
        """Whether the tokens at these positions, none of which holds a mask, are final."""
        exhausted = self.rounds >= self.most or (self.rule.budgeted and self.spent >= self._budget)
        return not self.rule.edits or exhausted or self.changed.isdisjoint(watched)
