"""A training step of the backbone beside plain PyTorch of the same mathematics: tokens a second and peak memory.

    python -m benchmarks.training_step [--quick] [--json FILE] [--threads N]

Both sides take the same weights, records and masks, give the same loss and gradient (checked before timing), and end with the
same fused AdamW. Ours is what the stage `backbone` runs. Theirs is what one writes down from the report: the noised and the
clean sequence side by side in full, a dense floating-point mask, experts one after another, norms from elementary operations,
logits at every noised place. tokens: those of the records, each counted once, however often it is computed.
Axes: S packed sequences, T places of one copy in each, D width.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import (
    PeakMemory,
    Row,
    alternate,
    arguments,
    mask_of,
    middle_backbone,
    progress,
    report,
    shipped_backbone,
    start,
)
from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import two_stream
from llada_uni.backbone.moe import MixtureOfExperts, plain_experts
from llada_uni.backbone.norm import RMSNorm, rms_norm_plain
from llada_uni.backbone.rope import apply_rotary, rotary_tables
from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.masking import Masker, MaskingOptions
from llada_uni.data.masking import Row as Noised
from llada_uni.data.packing import pack
from llada_uni.training.language.losses import chunked_cross_entropy, masked_positions, weigh

BLOCK = 32


@dataclass(frozen=True)
class Case:
    """records: how many a step, half of them drawing `codes` codes behind `context` tokens, half answering in `words`."""

    name: str
    model: Callable[[], Backbone]
    records: int
    context: int
    codes: int
    words: int
    length: int
    repeats: int


CASES = (
    Case("shipped size", shipped_backbone, 14, 30, 16, 8, 256, 15),
    Case("92 M parameters, 32 experts", lambda: middle_backbone(experts=32), 2, 60, 256, 40, 1024, 5),
)


def records_of(case: Case, model: Backbone) -> list[tuple[np.ndarray, np.ndarray]]:
    """ids and kinds of the step's records, from a seed."""
    rng, config = random.Random(0), model.config
    made = []
    for number in range(case.records):
        kind, count = ((CODE, case.codes), (TEXT, case.words))[number % 2]
        low, high = (config.image_token_offset, config.vocab_size) if kind == CODE else (0, mask_of(model))
        context = case.context if kind == CODE else case.context + case.codes
        ids = [rng.randrange(mask_of(model)) for _ in range(context)] + [rng.randrange(low, high) for _ in range(count)]
        made.append((np.array(ids), np.array([CONTEXT] * context + [kind] * count, np.int8)))
    return made


def noised(
    case: Case, model: Backbone, records: Sequence[tuple[np.ndarray, np.ndarray]], masking: MaskingOptions
) -> list[Noised]:
    """The records with masks, from a seed."""
    masker, rng = Masker(masking, mask_of(model), 0, case.length), random.Random(0)
    return [row for ids, kinds in records for row in masker.rows(ids, kinds, "benchmark", rng)]


def our_loss(model: Backbone, rows: Sequence[Noised], length: int) -> Tensor:
    """The mean loss of a step as the stage computes it."""
    batch = pack(rows, length, pad_id=0)
    places = masked_positions(batch)
    weights, divisor = weigh(batch, places, "none")
    hidden = model.hidden(batch.ids, batch.positions, batch.mask(), only=places)
    losses, _ = chunked_cross_entropy(hidden, batch.targets.flatten()[places], model.logits, chunk=8192)
    return (losses * weights).sum() / divisor


@dataclass(frozen=True)
class Streams:
    """Both copies of every sample, packed: noised, clean, positions, targets, segments int64 [S, T], weights [S, T]."""

    noised: Tensor
    clean: Tensor
    positions: Tensor
    targets: Tensor
    segments: Tensor
    weights: Tensor


def streams_of(records: Sequence[tuple[np.ndarray, np.ndarray]], rows: Sequence[Noised], length: int) -> Streams:
    """The rows of ours written out: for each copy the whole sample with its masks, and the whole clean sample."""
    samples = []
    for (ids, _), row in zip(records, rows, strict=True):
        end = int(row.positions.max()) + 1
        for number in sorted({*row.copies[row.views > 0]}):
            mine = (row.views > 0) & (row.copies == number)
            at = row.positions[mine]
            clean = np.zeros(end, np.int64)
            clean[: min(end, len(ids))] = ids[:end]
            noised, targets, weights = clean.copy(), np.full(end, -1), np.zeros(end, np.float32)
            noised[at], targets[at], weights[at] = row.ids[mine], row.targets[mine], row.weights[mine]
            samples.append((noised, clean, np.arange(end), targets, weights))
    samples.sort(key=lambda sample: -len(sample[0]))
    packed: list[list] = []
    for sample in samples:
        fits = next((s for s in packed if sum(len(x[0]) for x in s) + len(sample[0]) <= length), None)
        packed.append([sample]) if fits is None else fits.append(sample)
    out = [torch.zeros(len(packed), length, dtype=torch.int64) for _ in range(5)] + [torch.zeros(len(packed), length)]
    noised, clean, positions, targets, segments, weights = out
    targets.fill_(-1)
    segments.fill_(-1)
    for s, group in enumerate(packed):
        at = 0
        for number, sample in enumerate(group):
            here = (s, slice(at, at + len(sample[0])))
            for tensor, values in zip((noised, clean, positions, targets, weights), sample, strict=True):
                tensor[here] = torch.from_numpy(values).to(tensor.dtype)
            segments[here] = number
            at += len(sample[0])
    return Streams(noised, clean, positions, targets, segments, weights)


def plain_loss(model: Backbone, streams: Streams) -> Tensor:
    """The same mean loss, written down from the report. `model` only lends its weights and its router."""
    config = model.config
    places = streams.noised.shape[1]
    ids, positions = torch.cat((streams.noised, streams.clean), 1), streams.positions.repeat(1, 2)
    allowed = two_stream(streams.positions, BLOCK, streams.segments).unsqueeze(1)
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
    x = model.model.word_embeddings(ids)
    rotary = rotary_tables(positions, config.rotary_dim, config.rope_theta, x.dtype)

    def norm(x: Tensor, module: RMSNorm) -> Tensor:
        return rms_norm_plain(x, module.weight, module.eps)

    for layer in model.model.layers:
        x = x + _plain_attention(layer.attention, norm(x, layer.input_layernorm), rotary, mask)
        x = x + _plain_feed_forward(layer.mlp, norm(x, layer.post_attention_layernorm))
    x = norm(x, model.model.norm)
    logits = F.linear(x[:, :places], model.lm_head.weight)
    losses = F.cross_entropy(logits.flatten(0, 1), streams.targets.flatten(), ignore_index=-1, reduction="none")
    return (losses * streams.weights.flatten()).sum() / streams.weights.sum()


def _plain_attention(attention, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    rows, places, _ = x.shape
    heads, groups, size = attention.heads, attention.groups, attention.head_dim
    fused = attention.query_key_value(x).view(rows, places, heads + 2 * groups, size)
    queries, keys, values = fused.split((heads, groups, groups), 2)
    queries = apply_rotary(rms_norm_plain(queries, attention.query_layernorm.weight, attention.eps), rotary)
    keys = apply_rotary(rms_norm_plain(keys, attention.key_layernorm.weight, attention.eps), rotary)
    keys, values = (part.repeat_interleave(heads // groups, 2) for part in (keys, values))
    mixed = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (queries, keys, values)), attn_mask=mask)
    return attention.dense(mixed.transpose(1, 2).flatten(2))


def _plain_feed_forward(mlp, x: Tensor) -> Tensor:
    if not isinstance(mlp, MixtureOfExperts):
        return mlp(x)
    flat, experts = x.flatten(0, 1), mlp.experts
    routed = plain_experts(flat, mlp.gate(flat), experts.gate_proj, experts.up_proj, experts.down_proj)
    return (routed + mlp.shared_experts(flat)).view_as(x)


class Side:
    """One side's step: loss, gradient, AdamW. Both sides move the same weights by turns."""

    def __init__(self, model: Backbone, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss

    def gradient(self) -> tuple[float, Tensor]:
        """The loss, and the length of its gradient."""
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        norms = [parameter.grad.norm() for parameter in self.model.parameters() if parameter.grad is not None]
        return loss.item(), torch.stack(norms).norm()

    def step(self) -> None:
        self.gradient()
        self.optimizer.step()


def _give_memory_back() -> None:
    """Asks the C library (glibc) to return freed memory, so that what a step takes can be seen as growth."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def measure(case: Case, repeats: int) -> list[Row]:
    """Both sides of one case: throughput, and memory beyond weights and optimizer."""
    progress(case.name)
    model = case.model().train().requires_grad_(True)
    records = records_of(case, model)
    rows = noised(case, model, records, MaskingOptions(BLOCK, rates=(0.3, 0.8), complementary=True))
    assert len(rows) == len(records)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ours = Side(model, optimizer, lambda: our_loss(model, rows, case.length))
    theirs = Side(model, optimizer, lambda: plain_loss(model, streams_of(records, rows, case.length)))
    (loss, norm), (their_loss, their_norm) = ours.gradient(), theirs.gradient()
    assert abs(loss - their_loss) < 1e-4 * abs(their_loss), (loss, their_loss)
    assert abs(norm - their_norm) < 1e-3 * their_norm, (norm, their_norm)
    peaks = []
    for side in (ours, theirs):
        side.step()
        side.optimizer.zero_grad()
        _give_memory_back()
        with PeakMemory() as memory:
            side.step()
        peaks.append(memory.bytes / 2**20)
    tokens = sum(len(ids) for ids, _ in records)
    mine, others = alternate(ours.step, theirs.step, repeats)
    facts = {"loss": loss, "their loss": their_loss, "seconds a step": mine}
    return [
        Row(f"{case.name}: step", "plain PyTorch", "tokens/s", tokens / mine, tokens / others, others / mine, facts),
        Row(f"{case.name}: memory", "plain PyTorch", "MiB", peaks[0], peaks[1], peaks[1] / max(peaks[0], 1e-9)),
    ]


def main(given: Sequence[str] | None = None) -> list[Row]:
    """Command line entry; returns the rows."""
    options = start(arguments(__doc__), given)
    cases = CASES[:1] if options.quick else CASES
    rows = [row for case in cases for row in measure(case, 5 if options.quick else case.repeats)]
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
