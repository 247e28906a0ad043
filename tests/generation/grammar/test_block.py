"""The dynamic programme of a block equals brute force over all strings, and its slow twin, on small vocabularies."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from llada_uni.generation.grammar.block import Here, hold, possible
from llada_uni.generation.grammar.expression import automaton_of
from llada_uni.generation.grammar.lift import Vocabulary
from llada_uni.generation.grammar.slow import SlowGrammar

END = 9
WORDS = {0: b"a", 1: b"b", 2: b"ab", 3: b"c", 4: b"ba", 5: b"bc", 6: b"\xc3", 7: b"\xa9"}  # 8: no text; 6 7: the letter é
SIZE = 10
REGEXES = ["(ab|c)*", "a|bc*", "ab?c{1,3}", "(a|b)*c", "é*a?", "abab", "[abc]{2,5}", "(abc|c(ba)*)+", "", "é|ab|cab"]


def grammars(regex):
    automaton = automaton_of(regex)
    return automaton, Vocabulary(WORDS, END).lift(automaton), SlowGrammar(automaton, WORDS, END)


def random_case(rng, slow, fast):
    """(tokens before the block, what is fixed in it, room, number of positions), such that the block can be finished."""
    while True:
        n, room = rng.randint(1, 4), rng.randint(0, 4)
        state, before = 0, []
        for _ in range(rng.randint(0, 3)):
            token, state = rng.choice(list(slow.steps(state).items()))
            before.append(token)
        string, at = [], state
        for _ in range(n):
            token, at = rng.choice(list(slow.steps(at).items()))
            string.append(token)
        if slow.distance[at] <= room:
            return before, [token if rng.random() < 0.3 else None for token in string], room


def enumerated(slow, before, fixed, room, logits):
    """[(log-weight, string)] of all strings that fit what is fixed and that the automaton can finish."""
    rows, found = iter(logits.tolist()), []
    rows = [next(rows) if token is None else None for token in fixed]
    for string in itertools.product(range(SIZE), repeat=len(fixed)):
        if any(token not in (None, own) for token, own in zip(fixed, string, strict=True)):
            continue
        try:
            state = slow.state_behind([*before, *string])
        except KeyError:
            continue
        if slow.distance[state] <= room:
            found.append((sum(row[t] for row, t in zip(rows, string, strict=True) if row is not None), string))
    return found


@pytest.mark.parametrize("regex", REGEXES)
def test_equals_brute_force(regex):
    rng, generator = random.Random(regex), torch.Generator().manual_seed(3)
    _, fast, slow = grammars(regex)
    for _ in range(12):
        before, fixed, room = random_case(rng, slow, fast)
        logits = 3 * torch.randn(fixed.count(None), SIZE, generator=generator, dtype=torch.float64)
        state = 0
        for token in before:
            state = fast.step(state, token)
        here = Here(state, tuple(fixed), room)
        found = enumerated(slow, before, fixed, room, logits)
        assert found and possible(fast, here)
        if not len(logits):
            continue
        choice, shares = hold(fast, here, logits)
        best = max(found)[1]
        where = [i for i, token in enumerate(fixed) if token is None]
        assert choice.tolist() == [best[i] for i in where]
        weights = torch.tensor([weight for weight, _ in found], dtype=torch.float64).softmax(0)
        expected = torch.zeros(len(where), SIZE, dtype=torch.float64)
        for weight, (_, string) in zip(weights, found, strict=True):
            for n, i in enumerate(where):
                expected[n, string[i]] += weight
        assert torch.allclose(shares.exp(), expected, atol=1e-12)
        slow_choice, slow_shares = slow.hold(slow.state_behind(before), fixed, room, logits)
        assert slow_choice == choice.tolist() and torch.allclose(slow_shares.exp(), expected, atol=1e-12)


@pytest.mark.parametrize("regex", REGEXES)
def test_what_cannot_be_finished_is_seen(regex):
    rng = random.Random(regex)
    _, fast, slow = grammars(regex)
    seen = set()
    for _ in range(60):
        fixed = [rng.choice([None, rng.randrange(SIZE)]) for _ in range(rng.randint(1, 4))]
        room = rng.randint(0, 3)
        logits = torch.zeros(fixed.count(None), SIZE)
        expected = bool(enumerated(slow, [], fixed, room, logits))
        seen.add(expected)
        assert possible(fast, Here(0, tuple(fixed), room)) == expected
    assert seen == {True, False}


def test_draws_follow_the_distribution():
    """Of many drawn strings each comes as often as its share among all that are possible says."""
    _, fast, slow = grammars("[abc]{1,3}")
    logits = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fixed, room = [None, 1, None, None], 1
    found = enumerated(slow, [], fixed, room, logits)
    weights = torch.tensor([weight for weight, _ in found], dtype=torch.float64).softmax(0).tolist()
    generator = torch.Generator().manual_seed(0)

    def draw(row, _):
        return int(torch.multinomial(row.softmax(-1), 1, generator=generator))

    counts, draws = {}, 4000
    for _ in range(draws):
        chosen = iter(hold(fast, Here(0, tuple(fixed), room), logits, draw)[0].tolist())
        string = tuple(next(chosen) if token is None else token for token in fixed)
        counts[string] = counts.get(string, 0) + 1
    assert set(counts) <= {string for _, string in found}
    for weight, (_, string) in zip(weights, found, strict=True):
        assert abs(counts.get(string, 0) / draws - weight) < 5 * (weight * (1 - weight) / draws) ** 0.5 + 1e-9


def test_the_slow_twin_draws_the_same():
    _, fast, slow = grammars("(ab|c)*")
    logits = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for seed in range(20):
        draws = []
        for twin in (lambda draw: hold(fast, Here(0, (None,) * 4, 2), logits, draw)[0].tolist(),
                     lambda draw: slow.hold(0, [None] * 4, 2, logits, draw)[0]):  # fmt: skip
            uniform = torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            draws.append(twin(lambda row, n, u=uniform: int((row.softmax(-1).cumsum(-1)[0] < u[n]).sum())))
        assert draws[0] == draws[1]


def test_any_part_of_the_best_string_leaves_a_way_to_the_end():
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for regex in REGEXES:
        _, fast, slow = grammars(regex)
        for _ in range(10):
            fixed: list[int | None] = [None] * 5
            here = Here(0, tuple(fixed), 3)
            if not possible(fast, here):
                continue
            while None in fixed:
                logits = torch.randn(fixed.count(None), SIZE, generator=generator)
                places = [i for i, token in enumerate(fixed) if token is None]
                choice = hold(fast, Here(0, tuple(fixed), 3), logits)[0].tolist()
                for n in rng.sample(range(len(places)), rng.randint(1, len(places))):
                    fixed[places[n]] = choice[n]
            assert slow.distance[slow.state_behind([token for token in fixed if token is not None])] <= 3


def test_extreme_logits_lose_nothing():
    """Probabilities far below what float64 holds still rank: a model that wants anything but the grammar."""
    _, fast, _ = grammars("abab|cccc")
    logits = torch.full((6, SIZE), -900.0, dtype=torch.float64)
    logits[:, 8] = 900.0  # no token of the grammar
    logits[0, 3] = -899.0
    choice, shares = hold(fast, Here(0, (None,) * 6, 0), logits)
    assert choice.tolist() == [3, 3, 3, 3, END, END]
    assert torch.isfinite(shares[0, 3]) and torch.allclose(shares.exp().sum(-1), torch.ones(6, dtype=torch.float64))
