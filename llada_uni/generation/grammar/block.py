"""The open positions of a block, held to a token automaton: what may stand where, the best string, a drawn string.

A block's tokens are independent given the network, so the strings that the automaton accepts have a distribution: the product
of the positions' probabilities, over those strings alone. From it come, by dynamic programming over positions and states, the
most probable string (arXiv:2505.23061), a drawn one, and for every position the probability of each token (all other open
positions summed out), which says how certain a proposal is. All in logarithms. `slow.py` says the same in plain words.
Any part of the best or of a drawn string can be committed: the whole of it shows that the block can still be finished.
Axes: n positions of the block, m open ones of them, V vocabulary; S, C, L, E as in `lift.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llada_uni.generation.grammar.expression import DEAD
from llada_uni.generation.grammar.lift import TokenAutomaton

Floats = NDArray[np.float64]
NEVER = float("-inf")
DrawOne = Callable[[Tensor, int], int]  # (log-probabilities [1, V], which open position) -> a token


@dataclass(frozen=True)
class Here:
    """A block as it stands. state: of the automaton before it; fixed: its tokens, None where a mask is; room: tokens that the
    answer may still have behind it.
    """

    state: int
    fixed: tuple[int | None, ...]
    room: int


def possible(automaton: TokenAutomaton, here: Here) -> bool:
    """Whether the block can still be finished."""
    reached = np.zeros(automaton.states, bool)
    reached[here.state] = True
    for token in here.fixed:
        edges = reached[automaton.source]
        if token is not None:
            edges &= _having(automaton, token)[automaton.label]
        reached = np.zeros(automaton.states, bool)
        reached[automaton.target[edges]] = True
    return bool((reached & (automaton.distance <= here.room)).any())


def hold(automaton: TokenAutomaton, here: Here, logits: Tensor, draw: DrawOne | None = None) -> tuple[Tensor, Tensor]:
    """(a token for every open position [m] int64, log-probabilities of every token there [m, V]).

    logits: [m, V] of the open positions (up to a constant each), temperature included. draw: draws a token from the
    log-probabilities of one position, given all before it; None: the most probable string. ValueError if nothing can finish
    the block, which nothing that this function allows leads to.
    """
    classes = automaton.classes
    members = torch.from_numpy(classes.members).to(logits.device)
    scores = logits.index_select(1, members).cpu().double().numpy()
    programme = _Programme(automaton, _trimmed(automaton, here), scores)
    choice = programme.best() if draw is None else programme.drawn(draw, logits.shape[1])
    shares = torch.full(logits.shape, NEVER, dtype=torch.float64)
    shares[:, torch.from_numpy(classes.members)] = torch.from_numpy(scores + programme.factors()[:, automaton.kinds])
    return torch.tensor(choice, device=logits.device), shares.to(logits.device, logits.dtype)


def _trimmed(automaton: TokenAutomaton, here: Here) -> Here:
    """The same block from its first mask on."""
    state, fixed = here.state, here.fixed
    while fixed and fixed[0] is not None:
        state, fixed = automaton.step(state, fixed[0]), fixed[1:]
    return Here(state, fixed, here.room)


def _having(automaton: TokenAutomaton, token: int) -> NDArray[np.bool_]:
    """[L]: which labels have the token."""
    found = np.zeros(len(automaton.labels), bool)
    if token in automaton.class_of:
        found[automaton.labels_of.of(automaton.class_of[token])] = True
    return found


class _Programme:
    """Forward and backward sums of one block. scores [m, V']: logits of the tokens of the grammar, class by class."""

    def __init__(self, automaton: TokenAutomaton, here: Here, scores: Floats) -> None:
        if here.state == DEAD:
            raise ValueError("grammar: the block holds a text that is not allowed")
        self.automaton, self.here, self.scores = automaton, here, scores
        self.open = [i for i, token in enumerate(here.fixed) if token is None]
        starts = automaton.classes.starts[:-1]
        self.largest = np.maximum.reduceat(scores, starts, axis=1)  # [m, C]
        top = np.where(np.isfinite(self.largest), self.largest, 0.0)
        with np.errstate(divide="ignore"):
            sums = np.log(np.add.reduceat(np.exp(scores - top[:, automaton.kinds]), starts, axis=1)) + top
        self.sums = self._by_label(sums, np.logaddexp)  # [n, L]
        self.ahead = self._backward()
        self.total = self.ahead[0, here.state]
        if not np.isfinite(self.total):
            raise ValueError("grammar: nothing can finish this block")

    def _by_label(self, of_class: Floats, join: np.ufunc) -> Floats:
        """[n, L] of every position, from the classes' of the open ones [m, C]; a fixed token weighs 1, every other one 0."""
        labels = self.automaton.labels
        out = np.full((len(self.here.fixed), len(labels)), NEVER)
        out[self.open] = join.reduceat(of_class[:, labels.members], labels.starts[:-1], axis=1)
        for i, token in enumerate(self.here.fixed):
            if token is not None:
                out[i, _having(self.automaton, token)] = 0.0
        return out

    def _forward(self, weights: Floats, join: np.ufunc) -> Floats:
        """[n + 1, S]: of all strings from the block's first state to a state, joined. weights: [n, L]."""
        edges = self.automaton.by_target
        reached = np.full((len(weights) + 1, self.automaton.states), NEVER)
        reached[0, self.here.state] = 0.0
        for i, row in enumerate(weights):
            reached[i + 1, edges.ends] = join.reduceat(reached[i, edges.others] + row[edges.label], edges.starts)
        return reached

    def _backward(self) -> Floats:
        """[n + 1, S]: the sum of all strings from a state to the block's end, at states that leave enough room."""
        edges = self.automaton.by_source
        ahead = np.full((len(self.sums) + 1, self.automaton.states), NEVER)
        ahead[-1, self.automaton.distance <= self.here.room] = 0.0
        for i in range(len(self.sums) - 1, -1, -1):
            ahead[i, edges.ends] = np.logaddexp.reduceat(ahead[i + 1, edges.others] + self.sums[i, edges.label], edges.starts)
        return ahead

    def factors(self) -> Floats:
        """[m, C]: what makes a token's logit the logarithm of its probability, by its class."""
        automaton, edges = self.automaton, self.automaton.by_label
        before = self._forward(self.sums, np.logaddexp)
        at = np.array(self.open)
        weights = before[at][:, edges.others] + self.ahead[at + 1][:, edges.label]
        of_label = np.full((len(at), len(automaton.labels)), NEVER)
        of_label[:, edges.ends] = np.logaddexp.reduceat(weights, edges.starts, axis=1)
        inside = automaton.labels_of
        return np.logaddexp.reduceat(of_label[:, inside.members], inside.starts[:-1], axis=1) - self.total

    def best(self) -> list[int]:
        """The tokens of the most probable string at the open positions."""
        automaton = self.automaton
        weights = self._by_label(self.largest, np.maximum)
        reached = self._forward(weights, np.maximum)
        state = int(np.where(automaton.distance <= self.here.room, reached[-1], NEVER).argmax())
        chosen: list[int] = []
        for i in range(len(weights) - 1, -1, -1):
            entering = slice(*np.searchsorted(automaton.target, (state, state + 1)))
            source, label = automaton.source[entering], automaton.label[entering]
            edge = int((reached[i, source] + weights[i, label]).argmax())
            state = int(source[edge])
            if self.here.fixed[i] is None:
                chosen.append(self._best_token(len(self.open) - len(chosen) - 1, int(label[edge])))
        return chosen[::-1]

    def _best_token(self, row: int, label: int) -> int:
        classes = self.automaton.classes
        kinds = self.automaton.labels.of(label)
        kind = int(kinds[self.largest[row, kinds].argmax()])
        begin, end = classes.starts[kind : kind + 2]
        return int(classes.members[begin + self.scores[row, begin:end].argmax()])

    def drawn(self, draw: DrawOne, size: int) -> list[int]:
        """Tokens for the open positions, drawn one after the other, each given those before it and all that is fixed."""
        automaton, state = self.automaton, self.here.state
        chosen: list[int] = []
        for i, token in enumerate(self.here.fixed):
            if token is None:
                row = np.full(size, NEVER)
                for kind, target in automaton.leaving(state):
                    begin, end = automaton.classes.starts[kind : kind + 2]
                    tokens = automaton.classes.members[begin:end]
                    row[tokens] = self.scores[len(chosen), begin:end] + self.ahead[i + 1, target]
                token = draw(torch.from_numpy(row)[None], len(chosen))
                chosen.append(token)
            state = automaton.step(state, token)
        return chosen
