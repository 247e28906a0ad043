"""Cross-entropy at the masked positions of a batch, weighted, as sums that the loop divides by the whole global batch.

Weighting schemes (arXiv:2604.20796, training), each with its own divisor:
- "none": every masked position counts the same; divided by the masked positions;
- "linear": the time weight -alpha'_t / (1 - alpha_t) = 1 / t of the linear schedule, t the rate at which the block was masked;
  divided by the positions that could have been masked, so that the loss estimates the bound per token;
- "inverse_root": re-weighting of fine-tuning, sum_j b_j L_j / sum_j b_j, b_j = 1 / sqrt(masked positions of sample j), L_j its
  summed loss: a short answer is not drowned by an image of a thousand codes.
- token weighting by frequency, beside any of them: rare tokens count for more, so that a thing that is drawn once in a thousand
  codes is learned beside the empty background that is drawn all the time.
Positions of end-of-text filling count as their small weight, as positions too.

M masked positions, J rows, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llada_uni.data.packing import Batch
from llada_uni.data.shards import TokenShard, read_manifest

Scheme = Literal["none", "linear", "inverse_root"]
LARGEST_WEIGHT = 30.0
"""No token counts for more than so many of the average one."""


def masked_positions(batch: Batch) -> Tensor:
    """Indices [M] of the masked positions, into the S * T flattened ones."""
    return (batch.targets >= 0).flatten().nonzero().squeeze(1)


def weigh(batch: Batch, at: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Weights [M] of the positions, and what the summed loss is divided by (scalar)."""
    base = batch.weights.flatten()[at]
    if scheme == "none":
        return base, base.sum()
    if scheme == "linear":
        return base / batch.rates.flatten()[at], batch.learnable.sum()
    if scheme == "inverse_root":
        sample = (2 * batch.segments + batch.copies).flatten()[at]  # opposite masks of one row are two samples
        masked = batch.learnable.new_zeros(2 * len(batch.learnable)).index_add_(0, sample, base)
        share = masked.clamp(min=1.0).rsqrt()
        return base * share[sample], share[masked > 0].sum()
    raise ValueError(f"unknown weighting {scheme!r}")


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """logits [M, V], targets [M] -> loss [M] in nats, and whether the best token is right [M] bool."""
    return F.cross_entropy(logits, targets, reduction="none"), logits.detach().argmax(-1) == targets


def chunked_cross_entropy(
    hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], chunk: int
) -> tuple[Tensor, Tensor]:
    """`cross_entropy(head(hidden), targets)` for hidden [M, D], holding the logits of `chunk` positions at a time.

    They are computed again in the backward pass: with 173568 tokens, the logits of one packed sequence take gigabytes.
    """

    def part(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        return cross_entropy(head(states), wanted)

    if len(targets) <= chunk:
        return part(hidden, targets)
    pairs = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    losses, right = zip(*(checkpoint(part, h, t, use_reentrant=False) for h, t in pairs), strict=True)
    return torch.cat(losses), torch.cat(right)


def frequencies(data: Mapping[str, float], size: int) -> Tensor:
    """Shares [size] float64 of the tokens that are learned, folders mixed as they are trained; from the first shard of each."""
    total = torch.zeros(size, dtype=torch.float64)
    for folder, share in data.items():
        shard = TokenShard(Path(folder) / read_manifest(Path(folder))["shards"][0]["file"])
        counts = np.bincount(shard.learned_ids(), minlength=size)
        total += share * torch.from_numpy(counts / max(1, counts.sum()))
    return total / total.sum()


def frequency_weights(data: Mapping[str, float], size: int, power: float) -> Tensor:
    """Weights [size] float32, frequency ** -power, with mean 1 over the tokens as they occur (power 0: all 1)."""
    share = frequencies(data, size)
    seen = share > 0
    weights = torch.ones_like(share)
    weights[seen] = share[seen] ** -power
    weights[seen] /= (share * weights)[seen].sum()
    return weights.clamp(max=LARGEST_WEIGHT).float()
