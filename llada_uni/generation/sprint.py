"""SPRINT: which places of the prefix the later steps of a block still attend to (arXiv:2604.20796, acceleration).

After the first step of a block, which sees everything, the prefix (all places before the block) is pruned once; the
later steps attend to what was kept, and to the block itself. Each layer of each branch of guidance keeps its own
places, because key norms are those of a layer and of a prompt; the heads of a layer share them. Finished blocks
enter the cache in a first step, so their keys and values are never those of a pruned prefix.
Axes: P places of the prefix, H key heads, d features a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llada_uni.generation.params import Sprint


def kept_places(norms: Tensor, confidence: Tensor, is_image: Tensor, sprint: Sprint) -> Tensor:
    """Places of the prefix that one layer of one branch keeps, [K] int64, rising.

    norms [P]: length of the keys of all heads; confidence [P]: probability of the likeliest token at each place;
    is_image [P] bool: an image code stands there. Of equal scores the earlier place is kept.
    """
    score = sprint.alpha * norms / norms.mean() + (1 - sprint.alpha) * confidence
    ranked = score.argsort(descending=True, stable=True)
    if not sprint.by_modality:
        return ranked[: int(sprint.r * len(ranked))].sort().values
    image = is_image[ranked]
    texts, images = ranked[~image], ranked[image]
    kept = (texts[: int(sprint.text_share * len(texts))], images[: int(sprint.image_share * len(images))])
    return torch.cat(kept).sort().values


def key_norms(keys: Tensor) -> Tensor:
    """keys [H, P, d] -> length of each place's key over all heads, [P] in float32 (float64 for a float64 model)."""
    wide = keys if keys.dtype == torch.float64 else keys.float()
    return wide.square().sum((0, 2)).sqrt()


def likeliest(logits: Tensor) -> Tensor:
    """logits [P, V] -> probability of the likeliest token, [P]."""
    return (logits.amax(-1) - logits.logsumexp(-1)).exp()
