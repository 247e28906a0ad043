"""How likely an answer is to a block-diffusion model, for all answers of a step in one forward.

Answers -> `Part`s: one block as it stood, or might have stood, while the answer was written, and which of its masks are scored
-> rows in the layout of data/masking.py -> packed sequences -> for each answer a weighted sum of log-probabilities.

    elbo:  L(y | x) = sum over levels n of 1 / (N t_n) sum over blocks b of log p(masked tokens of y_b | y_b noised at rate t_n,
           clean blocks before), the evidence lower bound estimated with N rates t_n spread evenly over a range
           (arXiv:2512.03759, and EBPO of the LLaDA2.1 report for blocks);
    trace: L(y | x) = sum over the steps in which y was drawn of log p(the tokens accepted | the block as it stood): the
           likelihood of what was done, exact where one token is drawn at a time (compare arXiv:2509.06949). Of a block with
           more than N steps, N are drawn and count for all.

What the engine cannot draw (the mask; of an image all but codes) has probability 0 here too.
The answers to one prompt share its clean tokens: their first blocks are views of one row, which is most of the work for short
answers.

N levels, M scored positions, A answers, w positions of a block, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llada_uni.data.masking import Row
from llada_uni.data.packing import Batch, pack
from llada_uni.errors import UserError
from llada_uni.training.reward.rollouts import OPEN, Rollout

Likelihood = Literal["elbo", "trace"]


@dataclass(frozen=True)
class Part:
    """One block of an answer in one state. answer: number of the answer; start: first position in prompt and answer; ids [w]:
    what stands there in the end; masked, scored bool [w] (what is scored is masked); weight: of its log-probabilities.
    """

    answer: int
    start: int
    ids: np.ndarray
    masked: np.ndarray
    scored: np.ndarray
    weight: float


class Written(NamedTuple):
    """One answer and its parts. number: among all answers; prompt: where it begins in ids [n], which hold prompt and answer."""

    number: int
    prompt: int
    ids: np.ndarray
    parts: list[Part]


class Scored(NamedTuple):
    """Everything that one forward needs. at int64 [M]: scored positions, among the flattened ones; targets int64 [M];
    answers int64 [M]: whose they are; weights float32 [M]; lengths float32 [A]: tokens of each answer.
    """

    packed: Batch
    at: Tensor
    targets: Tensor
    answers: Tensor
    weights: Tensor
    lengths: Tensor


def rates(levels: int, low: float, high: float, block: int, shift: float) -> list[float]:
    """`levels` rates spread evenly over low..high, moved together by `shift` (0..1) of their distance; at least 1 / block."""
    return [max(low + (high - low) * (n + shift) / levels, 1 / block) for n in range(levels)]


def elbo_parts(
    number: int, prompt: int, ids: np.ndarray, block: int, tail: int, noise: np.random.Generator, levels: Sequence[float]
) -> list[Part]:
    """The blocks of an answer, noised at each of the rates.

    number: of the answer; prompt: where it begins in ids [n] (prompt and answer); tail: the token with which the last block is
    filled up (end of text, for text; as when answers are learned), or a negative number: nothing is.
    """
    parts = []
    for start in range(prompt // block * block, len(ids), block):
        stop = min(start + block, len(ids))
        filling = start + block - stop if tail >= 0 else 0
        tokens = np.concatenate([ids[start:stop], np.full(filling, tail, ids.dtype)])
        own = np.arange(start, start + len(tokens))
        learned = (own >= prompt) & (own < len(ids))
        draws = noise.random(len(tokens))  # the same for all rates: a lower one masks a part of what a higher one does
        for rate in levels:
            masked = (own >= prompt) & (draws < rate)
            scored = masked & learned
            if scored.any():
                parts.append(Part(number, start, tokens, masked, scored, 1 / (rate * len(levels))))
    return parts


def trace_parts(
    number: int,
    prompt: int,
    ids: np.ndarray,
    rollout: Rollout,
    block: int,
    mask_id: int,
    noise: np.random.Generator,
    most: int,
) -> list[Part]:
    """The blocks of an answer as they stood in the steps that drew it; at most `most` steps of a block. Arguments as above."""
    parts, last = [], len(rollout.tokens)
    for drawn in rollout.blocks:
        steps = np.array(drawn.steps)
        if drawn.start >= last:
            continue
        first = (prompt + drawn.start) // block * block
        known = ids[first : prompt + drawn.start]
        tokens = np.concatenate([known, np.where(steps == OPEN, mask_id, drawn.tokens)]).astype(ids.dtype)
        when = np.concatenate([np.full(len(known), -2), np.where(steps == OPEN, np.iinfo(np.int64).max, steps)])
        inside = first + np.arange(len(tokens)) < prompt + last  # behind the end nothing is an answer
        taken = sorted({int(step) for step in when[inside] if 0 <= step < np.iinfo(np.int64).max})
        chosen = taken
        if len(taken) > most:
            chosen = sorted(noise.choice(taken, most, replace=False).tolist())
        for step in chosen:
            parts.append(Part(number, first, tokens, when >= step, (when == step) & inside, len(taken) / len(chosen)))
    return parts


def pack_parts(groups: Sequence[Sequence[Written]], block: int, length: int, mask_id: int, pad_id: int) -> Scored:
    """Parts as packed sequences of at most `length` positions. groups: the answers to one prompt, after those to another.

    UserError for a prompt or an answer that no sequence holds.
    """
    rows: list[Row] = []
    lengths: dict[int, int] = {}
    for group in groups:
        first: list[Part] = []
        for number, prompt, ids, parts in group:
            lengths[number] = len(ids) - prompt
            shared = prompt // block * block
            first += [part for part in parts if part.start == shared]
            rows += _rows(ids, [part for part in parts if part.start > shared], block, length, mask_id)
        rows += _rows(group[0].ids, first, block, length, mask_id)
    packed = pack(rows, length, pad_id)
    at = (packed.targets >= 0).flatten().nonzero().squeeze(1)
    answers = packed.copies.flatten()[at]
    counts = torch.tensor([float(lengths[number]) for number in sorted(lengths)])
    return Scored(packed, at, packed.targets.flatten()[at], answers, packed.weights.flatten()[at], counts)


def _rows(ids: np.ndarray, parts: Sequence[Part], block: int, length: int, mask_id: int) -> list[Row]:
    """As few rows as hold the parts, each with the clean positions before its last part, which `ids` has."""
    rows: list[Row] = []
    held: list[Part] = []
    size = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start + len(part.ids) > length:
            raise UserError(
                f"a prompt with its answer up to position {part.start + len(part.ids)} does not fit into sequences of {length} "
                "positions; raise length, or leave such records out"
            )
        if held and part.start + size + len(part.ids) > length:
            rows.append(_row(ids, held, block, mask_id))
            held, size = [], 0
        held.append(part)
        size += len(part.ids)
    return [*rows, _row(ids, held, block, mask_id)] if held else rows


def _row(ids: np.ndarray, parts: Sequence[Part], block: int, mask_id: int) -> Row:
    """One row in the layout of data/masking.py; `copies` holds the numbers of the answers."""
    clean = parts[-1].start
    sizes = [clean, *(len(part.ids) for part in parts)]
    masked = np.concatenate([np.zeros(clean, bool), *(part.masked for part in parts)])
    scored = np.concatenate([np.zeros(clean, bool), *(part.scored for part in parts)])
    tokens = np.concatenate([ids[:clean], *(part.ids for part in parts)]).astype(np.int64)
    positions = np.concatenate([np.arange(clean), *(np.arange(part.start, part.start + len(part.ids)) for part in parts)])
    weights = np.repeat([0.0, *(part.weight for part in parts)], sizes)
    return Row(
        ids=np.where(masked, mask_id, tokens),
        positions=positions,
        blocks=positions // block,
        views=np.repeat(np.arange(len(parts) + 1), sizes),
        copies=np.repeat([0, *(part.answer for part in parts)], sizes),
        targets=np.where(scored, tokens, -1),
        weights=np.where(scored, weights, 0.0).astype(np.float32),
        rates=np.ones(len(tokens), np.float32),
        learnable=float(scored.sum()),
        task="",
    )


def log_likelihoods(
    hidden: Tensor,
    scored: Scored,
    head: Callable[[Tensor], Tensor],
    codes: tuple[int, int],
    mask_id: int,
    temperature: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """L of every answer [A], and the sum of entropies in nats at its scored positions [A] (without gradient).

    hidden [M, D]: states of the scored positions; head: their logits; codes: ids (first, behind the last) of image codes;
    temperature: at which the answers were drawn, so that this is the distribution they were drawn from.
    Logits of `chunk` positions are held at a time, and computed again in the backward pass.
    """

    def part(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(states) / temperature
        ids = torch.arange(logits.shape[-1], device=logits.device)
        code = (ids >= codes[0]) & (ids < codes[1])
        drawn = ((wanted >= codes[0]) & (wanted < codes[1]))[:, None]
        logits = logits.masked_fill((drawn & ~code) | (ids == mask_id), float("-inf"))
        scores = logits.log_softmax(-1)
        entropy = torch.special.entr(scores.detach().exp()).sum(-1)
        return scores.gather(1, wanted[:, None]).squeeze(1), entropy

    pieces = zip(hidden.split(chunk), scored.targets.split(chunk), strict=True)
    several = len(scored.targets) > chunk
    found = [checkpoint(part, h, t, use_reentrant=False) if several else part(h, t) for h, t in pieces]
    logs, entropies = (torch.cat(column) for column in zip(*found, strict=True))
    zero = logs.new_zeros(len(scored.lengths))
    return (
        zero.index_add(0, scored.answers, logs * scored.weights),
        zero.index_add(0, scored.answers, entropies.to(zero)),
    )
