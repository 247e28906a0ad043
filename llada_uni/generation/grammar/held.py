"""Proposals for a block whose text is held to a grammar; what oracle and engine share of it.

Logits of the positions that a rule may change -> tokens and certainties as `sampling.pick` gives them, with the masks' from the
grammar -> the rule -> `kept`, which drops edits after which the text could not be finished. The oracle takes the slow twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llada_uni.generation.grammar.block import DrawOne, Here, hold, possible
from llada_uni.generation.grammar.grammar import Grammar
from llada_uni.generation.params import Sampling
from llada_uni.generation.sampling import LEAST, Picked, confidence_of, pick


@dataclass(frozen=True)
class HeldBlock:
    """A block of an answer under a grammar, as it stands.

    answer: tokens of the answer so far; is_open: where it has masks; block: the answer's indices of the block; length: of the
    answer, behind which nothing is held to anything.
    """

    grammar: Grammar
    answer: Sequence[int]
    is_open: Sequence[bool]
    block: range
    length: int
    slow: bool = False

    @property
    def inside(self) -> range:
        """The block's indices that belong to the answer."""
        return range(self.block.start, min(self.block.stop, self.length))

    def fixed(self, changes: Mapping[int, int | None] | None = None) -> tuple[int | None, ...]:
        """The tokens inside, None for masks, after changes {index: token or None}."""
        found = {i: None if self.is_open[i] else self.answer[i] for i in self.inside}
        return tuple((found | dict(changes or {})).values())

    def pick(
        self,
        asked: Sequence[int],
        logits: Tensor,
        uniform: Tensor | None,
        settings: Sampling,
        forbidden: int | None,
        noise: Tensor | None,
    ) -> tuple[Picked, Tensor]:
        """(what is proposed at the positions asked for, their logits as the grammar sees them), from logits [N, V].

        A mask's proposal is part of the most probable string that fits, or of a drawn one, and its certainty is measured in the
        distribution over all such strings. top_k and top_p restrict each draw.
        """
        sampling = (settings.temperature, settings.top_k, settings.top_p)
        plain = pick(logits, uniform, *sampling, forbidden, settings.measure, noise)
        held = [n for n, i in enumerate(asked) if i in self.inside and self.is_open[i]]
        if not held:
            return plain, logits
        scaled = logits[held] / (max(settings.temperature, LEAST) if settings.temperature > 0 else 1.0)

        def draw(row: Tensor, n: int) -> int:
            assert uniform is not None, "sampling needs uniform numbers"
            number = uniform[held[n]].reshape(1).to(row)
            return int(pick(row, number, 1.0, settings.top_k, settings.top_p).choice)

        choice, seen = self._hold(scaled, draw if settings.temperature > 0 else None)
        shares = seen.exp()
        probability = shares.gather(-1, choice[:, None]).squeeze(-1)
        drawn = None if noise is None else noise[held]
        certainty = confidence_of(settings.measure, probability, shares, shares.shape[-1], drawn)
        for column, values in zip(plain, (choice, _rounded(certainty), _rounded(shares.amax(-1))), strict=True):
            column[held] = values.to(column)
        guided = logits.clone()
        guided[held] = seen
        return plain, guided

    def kept(self, changes: Mapping[int, int | None]) -> set[int]:
        """The indices of changes {index of the answer: token, or None for a mask} after which the text can still be finished:
        all proposals for masks, all new masks, and of the other edits, from left to right, those that fit.
        """
        def sound(i: int) -> bool:
            return i not in self.inside or self.is_open[i] or changes[i] is None

        done = {i: token for i, token in changes.items() if sound(i) and i in self.inside}
        taken = {i for i in changes if sound(i)}
        for i in sorted(set(changes) - taken):
            if self._possible(done | {i: changes[i]}):
                done[i] = changes[i]
                taken.add(i)
        return taken

    @property
    def _room(self) -> int:
        return self.length - self.inside.stop

    def _hold(self, logits: Tensor, draw: DrawOne | None) -> tuple[Tensor, Tensor]:
        before = self.answer[: self.block.start]
        if self.slow:
            state = self.grammar.slow.state_behind(before)
            tokens, seen = self.grammar.slow.hold(state, self.fixed(), self._room, logits, draw)
            return torch.tensor(tokens, device=logits.device), seen
        return hold(self.grammar.fast, Here(self._state(before), self.fixed(), self._room), logits, draw)

    def _state(self, tokens: Sequence[int]) -> int:
        state = 0
        for token in tokens:
            state = self.grammar.fast.step(state, token)
        return state

    def _possible(self, changes: Mapping[int, int | None]) -> bool:
        return possible(self.grammar.fast, Here(self._state(self.answer[: self.block.start]), self.fixed(changes), self._room))


def _rounded(certainty: Tensor) -> Tensor:
    """To 30 bits: a token that is the only one possible is certain, however the sums were rounded, and ties are ties."""
    return (certainty * 2.0**30).round() / 2.0**30
