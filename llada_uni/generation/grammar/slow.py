"""What `block.py` computes, in plain words: one token after the other, from the automaton over bytes. Its slow twin.

Dictionaries {state: ...} stand for the arrays of the fast form, and there are no classes of tokens. A state is that of the
byte automaton, or END behind the token that ends the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from llada_uni.generation.grammar.block import NEVER, DrawOne
from llada_uni.generation.grammar.expression import DEAD, ByteAutomaton

END = -2


class SlowGrammar:
    """A byte automaton with the tokens' spellings. Fields as in `lift.Vocabulary`."""

    def __init__(self, automaton: ByteAutomaton, spelled: Mapping[int, bytes], end_token: int) -> None:
        self.automaton, self.spelled, self.end_token = automaton, spelled, end_token
        self._steps: dict[int, dict[int, int]] = {}
        states = [*range(len(automaton.next)), END]
        self.distance = {state: 0 if state == END else math.inf for state in states}
        for _ in states:
            for state in states:
                ways = [1 + self.distance[target] for target in self.steps(state).values()]
                self.distance[state] = min(self.distance[state], *ways, math.inf)

    def steps(self, state: int) -> dict[int, int]:
        """{token: the state behind it} of all tokens allowed in a state."""
        if state not in self._steps:
            found = {}
            for token, word in sorted(self.spelled.items()) if state != END else ():
                target = state
                for byte in word:
                    target = target if target == DEAD else int(self.automaton.next[target, byte])
                if target != DEAD:
                    found[token] = target
            if state == END or self.automaton.final[state]:
                found[self.end_token] = END
            self._steps[state] = found
        return self._steps[state]

    def state_behind(self, tokens: Sequence[int]) -> int:
        """The state behind these tokens; KeyError where they are not allowed."""
        state = 0
        for token in tokens:
            state = self.steps(state)[token]
        return state

    def hold(
        self, state: int, fixed: Sequence[int | None], room: int, logits: Tensor, draw: DrawOne | None = None
    ) -> tuple[list[int], Tensor]:
        """As `block.hold`: fixed, room and state are those of `block.Here`."""
        scores = iter(logits.cpu().double().tolist())
        rows = [None if token is not None else next(scores) for token in fixed]

        def weight(i: int, token: int) -> float:
            row = rows[i]
            return (0.0 if fixed[i] == token else NEVER) if row is None else row[token]

        ahead = [{q: 0.0 if d <= room else NEVER for q, d in self.distance.items()}]
        for i in range(len(fixed) - 1, -1, -1):
            ways = {q: [weight(i, t) + ahead[0][r] for t, r in self.steps(q).items()] for q in self.distance}
            ahead.insert(0, {q: _sum(values) for q, values in ways.items()})
        before = [{state: 0.0}]
        for i in range(len(fixed)):
            after: dict[int, list[float]] = {}
            for q, value in before[i].items():
                for token, r in self.steps(q).items():
                    after.setdefault(r, []).append(value + weight(i, token))
            before.append({q: _sum(values) for q, values in after.items()})

        open_positions = [i for i, token in enumerate(fixed) if token is None]
        shares = torch.full(logits.shape, NEVER, dtype=torch.float64)
        for n, i in enumerate(open_positions):
            found: dict[int, list[float]] = {}
            for q, value in before[i].items():
                for token, r in self.steps(q).items():
                    found.setdefault(token, []).append(value + ahead[i + 1][r])
            for token, values in found.items():
                shares[n, token] = weight(i, token) + _sum(values) - ahead[0][state]
        if draw is None:
            tokens = self._best(state, len(fixed), weight, room)
        else:
            tokens = self._drawn(state, fixed, weight, ahead, draw, logits.shape[1])
        return [tokens[i] for i in open_positions], shares.to(logits)

    def _best(self, state: int, length: int, weight: Callable[[int, int], float], room: int) -> list[int]:
        best: dict[int, tuple[float, list[int]]] = {state: (0.0, [])}
        for i in range(length):
            after: dict[int, tuple[float, list[int]]] = {}
            for q, (value, tokens) in best.items():
                for token, r in self.steps(q).items():
                    more = value + weight(i, token)
                    if more > after.get(r, (NEVER, []))[0]:
                        after[r] = (more, [*tokens, token])
            best = after
        return max((entry for q, entry in best.items() if self.distance[q] <= room), key=lambda entry: entry[0])[1]

    def _drawn(
        self,
        state: int,
        fixed: Sequence[int | None],
        weight: Callable[[int, int], float],
        ahead: list[dict[int, float]],
        draw: DrawOne,
        size: int,
    ) -> list[int]:
        tokens: list[int] = []
        for i, token in enumerate(fixed):
            if token is None:
                row = torch.full((1, size), NEVER, dtype=torch.float64)
                for candidate, r in self.steps(state).items():
                    row[0, candidate] = weight(i, candidate) + ahead[i + 1][r]
                token = draw(row, sum(value is None for value in fixed[:i]))
            tokens.append(token)
            state = self.steps(state)[token]
        return tokens


def _sum(values: list[float]) -> float:
    """Logarithm of the sum of exponentials."""
    top = max(values, default=NEVER)
    return top if top == NEVER else top + math.log(sum(math.exp(value - top) for value in values))
