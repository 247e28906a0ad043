"""SPRINT: which positions of the prefix the later steps of a block still attend to, in its two forms.

The first steps of a block (`warmup` of them) see everything. Then the prefix (all positions before the block) is pruned
once; the later steps attend to what was kept, and to the block itself. Each layer of each branch of guidance keeps its
own positions, because key norms are those of a layer and of a prompt; the heads of a layer share them. Finished blocks
enter the cache in a first step, so their keys and values are never those of a pruned prefix.

The report's form (arXiv:2604.20796, acceleration) and that of the published code both score a position by its key norm and
by the probability of its likeliest token; they differ in how the norms of heads are joined, in what is kept for certain,
and in how many are kept. `Sprint.keep_ratio` chooses the published one.
Axes: P positions of the prefix, H key heads, d features a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llada_uni.generation.params import Sprint


def choose_kept(keys: Tensor, confidence: Tensor, is_image: Tensor, sprint: Sprint) -> Tensor:
    """Positions of the prefix that one layer of one branch keeps, [K] int64, rising.

    keys [H, P, d]; confidence [P]: probability of the likeliest token at each position; is_image [P] bool: an image code
    stands there. Of equal scores the earlier position is kept.
    """
    if sprint.published:
        return _kept_as_published(keys, confidence, is_image, sprint)
    return _kept_as_reported(key_norms(keys), confidence, is_image, sprint)


def _kept_as_published(keys: Tensor, confidence: Tensor, is_image: Tensor, sprint: Sprint) -> Tensor:
    """max(1, int(P * keep_ratio)) positions, or all pinned ones where they are more.

    The published code gives pinned positions an infinite norm before it divides by the mean of all. So once one is
    pinned, the norm part of all others is 0 and the confidence alone ranks them, unless alpha is 1.
    """
    assert sprint.keep_ratio is not None  # what makes it the published form
    pinned = (is_image & sprint.keeps_images) | (~is_image & sprint.keeps_text)
    pins, length = int(pinned.sum()), len(pinned)
    count = max(1, int(length * sprint.keep_ratio), pins) if length else 0
    if pins and sprint.alpha < 1:
        score = confidence
    else:
        norms = _wide(keys).norm(dim=-1).mean(0)  # the mean of the heads' lengths, not the length over all heads
        score = sprint.alpha * norms / norms.mean() + (1 - sprint.alpha) * confidence
    ranked = score.masked_fill(pinned, float("inf")).argsort(descending=True, stable=True)
    return ranked[:count].sort().values


def _kept_as_reported(norms: Tensor, confidence: Tensor, is_image: Tensor, sprint: Sprint) -> Tensor:
    """The best share of all positions, or of text and of image codes; norms [P]: lengths of the keys over all heads."""
    score = sprint.alpha * norms / norms.mean() + (1 - sprint.alpha) * confidence
    ranked = score.argsort(descending=True, stable=True)
    if not sprint.by_modality:
        return ranked[: int(sprint.text_share * len(ranked))].sort().values
    image = is_image[ranked]
    texts, images = ranked[~image], ranked[image]
    best = (texts[: int(sprint.text_share * len(texts))], images[: int(sprint.image_share * len(images))])
    return torch.cat(best).sort().values


def key_norms(keys: Tensor) -> Tensor:
    """keys [H, P, d] -> length of each position's key over all heads, [P] in float32 (float64 for a float64 model)."""
    return _wide(keys).square().sum((0, 2)).sqrt()


def _wide(keys: Tensor) -> Tensor:
    return keys if keys.dtype == torch.float64 else keys.float()


def likeliest(logits: Tensor) -> Tensor:
    """logits [P, V] -> probability of the likeliest token, [P]."""
    return (logits.amax(-1) - logits.logsumexp(-1)).exp()
