"""Token weighting by frequency: rare tokens count for more, so that a thing that is drawn once in a thousand codes is learned
beside the empty background that is drawn all the time.

What flows through: folders of token shards with their shares -> how often each token is learned -> weights [V] of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llada_uni.data.shards import TokenShard, read_manifest

LARGEST = 30.0
"""No token counts for more than so many of the average one."""


def frequencies(data: Mapping[str, float], size: int) -> Tensor:
    """Shares [size] float64 of the tokens that are learned, folders mixed as they are trained; from the first shard of each."""
    total = torch.zeros(size, dtype=torch.float64)
    for folder, share in data.items():
        shard = TokenShard(Path(folder) / read_manifest(Path(folder))["shards"][0]["file"])
        counts = np.bincount(shard.learnt_ids(), minlength=size)
        total += share * torch.from_numpy(counts / max(1, counts.sum()))
    return total / total.sum()


def frequency_weights(data: Mapping[str, float], size: int, power: float) -> Tensor:
    """Weights [size] float32, frequency ** -power, with mean 1 over the tokens as they occur (power 0: all 1)."""
    share = frequencies(data, size)
    seen = share > 0
    weights = torch.ones_like(share)
    weights[seen] = share[seen] ** -power
    weights[seen] /= (share * weights)[seen].sum()
    return weights.clamp(max=LARGEST).float()
