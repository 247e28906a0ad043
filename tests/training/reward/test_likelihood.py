"""Likelihoods of answers: the one forward equals one forward a part; on four tokens everything is counted through."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal_square
from llada_uni.errors import UserError
from llada_uni.generation.engine import Engine
from llada_uni.generation.settings import Settings
from llada_uni.training.reward.likelihood import (
    Written,
    elbo_parts,
    log_likelihoods,
    pack_parts,
    rates,
    trace_parts,
)
from llada_uni.training.reward.objective import clipped_objective
from llada_uni.training.reward.rollouts import Block, Rollout, _Recorder
from tests.backbone.helpers import small_config

MASK = 3  # of four tokens
PROMPT = (1, 0, 2)


def network(vocabulary: int = 4, first_code: int | None = None) -> Backbone:
    config = small_config(vocab_size=vocabulary, image_token_offset=vocabulary if first_code is None else first_code)
    model = Backbone(config, generator=torch.Generator().manual_seed(4)).double()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # far from uniform
    return model


def likelihoods(model: Backbone, written: list[list[Written]], block: int, codes=None, mask=MASK, chunk=7, length=64) -> Tensor:
    scored = pack_parts(written, block, length, mask, 0)
    packed = scored.packed
    hidden = model.hidden(packed.ids, packed.positions, packed.mask(), only=scored.at)
    size = model.config.vocab_size
    return log_likelihoods(hidden, scored, model.logits, codes or (size, size), mask, 1.0, chunk)[0]


def slow(model: Backbone, one: Written, block: int, codes: tuple[int, int], mask: int) -> Tensor:
    """One forward a part, on the sequence as the model sees it while it answers."""
    total = torch.zeros((), dtype=torch.float64)
    for part in one.parts:
        row = np.concatenate([one.ids[: part.start], np.where(part.masked, mask, part.ids)])
        logits = model(torch.from_numpy(row)[None], attention_mask=block_causal_square(len(row), block))[0, part.start :]
        for at in np.flatnonzero(part.scored):
            allowed = [i for i in range(logits.shape[-1]) if i != mask]
            if codes[0] <= part.ids[at] < codes[1]:
                allowed = list(range(*codes))
            shares = logits[at, allowed].log_softmax(0)
            total = total + part.weight * shares[allowed.index(int(part.ids[at]))]
    return total


def test_all_answers_in_one_forward_equal_one_forward_a_part():
    model, codes, mask, block = network(40, 30), (30, 40), 29, 8
    rng, noise = random.Random(0), np.random.default_rng(0)
    groups, flat = [], []
    for length, image in ((3, False), (13, True), (16, False), (21, False)):
        prompt = [rng.randrange(28) for _ in range(length)]
        group = []
        for _ in range(3):
            size = 11 if image else rng.randrange(1, 20)
            answer = [rng.randrange(*codes) if image else rng.randrange(28) for _ in range(size)]
            ids = np.array([*prompt, *answer], np.int64)
            number = len(flat) + len(group)
            if rng.random() < 0.5:
                parts = elbo_parts(number, length, ids, block, -1 if image else 28, noise, rates(3, 0.2, 1.0, block, 0.3))
            else:
                parts = trace_parts(number, length, ids, _random_rollout(rng, length, answer, block), block, mask, noise, 3)
            group.append(Written(number, length, ids, parts))
        groups.append(group)
        flat += group
    found = likelihoods(model, groups, block, codes, mask)
    expected = torch.stack([slow(model, one, block, codes, mask) for one in flat])
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6)  # weights are float32


def _random_rollout(rng: random.Random, prompt: int, answer: list[int], block: int) -> Rollout:
    """An answer as it might have been drawn, with something behind its end in the last block."""
    blocks, start = [], 0
    while start < len(answer):
        stop = (prompt + start) // block * block + block - prompt
        tokens = [*answer[start:stop], *(rng.randrange(28) for _ in range(stop - max(start, len(answer))))]
        steps = [rng.randrange(5) if start + i < len(answer) else rng.choice([-1, 0, 3]) for i in range(len(tokens))]
        blocks.append(Block(start, tuple(tokens), tuple(steps)))
        start = stop
    return Rollout(tuple(answer), True, tuple(blocks), 0)


def answers() -> list[tuple[int, int]]:
    return list(itertools.product(range(3), repeat=2))


def rewarded(answer: tuple[int, int]) -> float:
    return float(answer[0] == answer[1]) + 0.25 * answer[1]


def parameters_gradient(model: Backbone, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()), allow_unused=False)])


@pytest.mark.parametrize("likelihood", ["elbo", "trace"])
def test_the_gradient_equals_enumeration(likelihood):
    """Four tokens (one is the mask), answers of two: the expected gradient of the objective is that of the expected reward.

    Blocks of one for the bound, which is then exact; a block of both, drawn from left to right, for the trace.
    """
    model, noise = network(), np.random.default_rng(0)
    block = 1 if likelihood == "elbo" else 8
    written = []
    for number, answer in enumerate(answers()):
        ids = np.array([*PROMPT, *answer], np.int64)
        if likelihood == "elbo":
            parts = elbo_parts(number, len(PROMPT), ids, block, -1, noise, [1.0])
        else:
            drawn = Rollout(answer, True, (Block(0, (*answer, 0, 0, 0), (0, 1, -1, -1, -1)),), 2)
            parts = trace_parts(number, len(PROMPT), ids, drawn, block, MASK, noise, 9)
        written.append(Written(number, len(PROMPT), ids, parts))

    logs = likelihoods(model, [written], block)
    shares = logs.exp()
    assert float(shares.detach().sum()) == pytest.approx(1.0, abs=1e-9)  # all answers there are
    direct = torch.stack([one_by_one(model, answer, block) for answer in answers()])
    torch.testing.assert_close(logs, direct, atol=1e-9, rtol=0)

    rewards = torch.tensor([rewarded(answer) for answer in answers()], dtype=torch.float64)
    expected = parameters_gradient(model, (direct.exp() * rewards).sum())
    # What a group of endlessly many answers gives: each as often as it is likely, its advantage over the mean.
    weights = shares.detach() * (rewards - (shares.detach() * rewards).sum())
    new = likelihoods(model, [written], block)
    lengths = torch.full((9,), 2.0, dtype=torch.float64)
    found = clipped_objective(new, new.detach(), None, weights, lengths, (0.2, 0.2), 0.0)
    assert torch.equal(found.ratios, torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(parameters_gradient(model, -2 * found.total), expected, atol=1e-9, rtol=1e-7)


def one_by_one(model: Backbone, answer: tuple[int, int], block: int) -> Tensor:
    """log p of an answer that is drawn from left to right, one token at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(2):
        row = [*PROMPT, *answer[:i], MASK] if block == 1 else [*PROMPT, *answer[:i], *[MASK] * (5 - i)]
        logits = model(torch.tensor([row]), attention_mask=block_causal_square(len(row), block))[0, len(PROMPT) + i]
        total = total + logits[:MASK].log_softmax(0)[answer[i]]
    return total


def test_the_bound_is_estimated_without_bias():
    """The mean over many shifts and masks is the sum over all masks, each as likely as it is at its rate, over its rate."""
    model, block = network(), 8
    ids = np.array([*PROMPT, 2, 0], np.int64)
    exact, grid = 0.0, 64
    for i in range(grid):
        rate = max((i + 0.5) / grid, 1 / block)
        for mask in itertools.product((False, True), repeat=2):
            chance = np.prod([rate if one else 1 - rate for one in mask])
            masked = np.array([False] * 3 + list(mask))
            row = np.where(masked, MASK, ids)
            with torch.no_grad():
                logits = model(torch.from_numpy(row)[None], attention_mask=block_causal_square(5, block))[0]
            logs = [float(logits[at][:MASK].log_softmax(0)[ids[at]]) for at in np.flatnonzero(masked)]
            exact += float(chance) / rate / grid * sum(logs)
    noise, written = np.random.default_rng(1), []
    for number in range(800):
        parts = elbo_parts(number, 3, ids, block, -1, noise, rates(4, 0.0, 1.0, block, float(noise.random())))
        written.append(Written(number, 3, ids, parts))
    with torch.no_grad():
        found = likelihoods(model, [written], block, chunk=10_000)
    assert float(found.mean()) == pytest.approx(float(exact), rel=0.06)


def test_a_trace_is_what_the_engine_did():
    """The engine's own confidences at each step are the probabilities that the trace scores."""
    model, mask, block = network(40, 40).float(), 29, 8
    seen: list[float] = []
    recorder = _Recorder()
    open_before: dict[int, tuple[bool, ...]] = {}

    def listen(event):
        before = open_before.get(event.block_start, (False,) * len(event.accepted))
        now = [sure for sure, a, b in zip(event.confidences, event.accepted, before, strict=True) if a and not b]
        seen.extend(now)
        open_before[event.block_start] = event.accepted
        recorder(event)

    settings = Settings(
        mask_id=mask, gen_length=19, block_length=block, steps=4, threshold=0.9, temperature=1.0, overhang=False
    )
    prompt = list(range(5))
    made = Engine(model).generate(prompt, settings, generator=torch.Generator().manual_seed(3), on_step=listen)
    ids = np.array([*prompt, *made.tokens], np.int64)
    rollout = Rollout(tuple(made.tokens), True, recorder.blocks(), made.evaluations)
    parts = trace_parts(0, 5, ids, rollout, block, mask, np.random.default_rng(0), 99)
    found = likelihoods(model, [[Written(0, 5, ids, parts)]], block, mask=mask)
    assert float(found[0]) == pytest.approx(float(np.log(seen).sum()), abs=1e-3)


def test_an_answer_that_no_sequence_holds_is_refused():
    ids = np.zeros(40, np.int64)
    parts = elbo_parts(0, 3, ids, 8, -1, np.random.default_rng(0), [1.0])
    with pytest.raises(UserError, match="position 40 does not fit into sequences of 32"):
        pack_parts([[Written(0, 3, ids, parts)]], 8, 32, MASK, 0)
