"""SPRINT: which places of the prefix the later steps of a block still attend to (arXiv:2604.20796, acceleration).

After the first step of a block, which sees everything, the prefix (all places before the block) is pruned once; the
later steps attend to what was kept, and to the block itself. Each layer of each branch of guidance keeps its own
places, because key norms are those of a layer and of a prompt; the heads of a layer share them. Finished blocks
enter the cache in a first step, so their keys and values are never those of a pruned prefix.
Axes: P places of the prefix, H key heads, d features a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llada_uni.errors import UserError


@dataclass(frozen=True)
class Sprint:
    """How much of the prefix is kept, and by what.

    r: share of all places, where neither r_text nor r_img is given; else they are the shares of the places that hold
    text and image codes (one of them alone: r is the other). alpha: weight of the key norm against the confidence.
    The published settings are (r_text, r_img) = (1.0, 0.8) or (1.0, 1.0), alpha 0.5, with the rule "adaptive" and
    thresholds of 0.93 and 0.95.
    """

    r: float = 0.5
    r_text: float | None = None
    r_img: float | None = None
    alpha: float = 0.5

    def __post_init__(self) -> None:
        for name in ("r", "r_text", "r_img", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"sprint: {name} is {value}; allowed: 0 to 1")

    @property
    def by_modality(self) -> bool:
        """Whether text and image places are chosen separately."""
        return self.r_text is not None or self.r_img is not None

    @property
    def text_share(self) -> float:
        return self.r if self.r_text is None else self.r_text

    @property
    def image_share(self) -> float:
        return self.r if self.r_img is None else self.r_img

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever pruned."""
        return self.text_share == self.image_share == 1


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
