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

from dataclasses import dataclass

import torch
from torch import Tensor

from llada_uni.errors import UserError


@dataclass(frozen=True)
class Sprint:
    """How much of the prefix is kept, and by what, in one of two forms.

    The report's: r: share of all positions (default 0.5), where neither r_text nor r_img is given; else they are the
    shares of the positions that hold text and image codes (one of them alone: r is the other). Its settings are
    (r_text, r_img) = (1.0, 0.8) or (1.0, 1.0), alpha 0.5, with the rule "adaptive" and thresholds of 0.93 and 0.95.
    The published code's, where keep_ratio is given (0.7 there): the share of all positions. warmup
    (cache_warmup_steps, default 2): steps of a block that see everything; the report's form has one. Pinned positions are
    kept whatever the ratio: text unless text_keep_ratio is below 1, image codes if image_keep_ratio is 1; these two do
    nothing else. Left out while editing guidance is on. Its rule is "sprint", which "threshold" then stands for.
    alpha (confidence_alpha): weight of the key norm against the confidence.
    """

    r: float | None = None
    r_text: float | None = None
    r_img: float | None = None
    alpha: float = 0.5
    keep_ratio: float | None = None
    warmup: int | None = None
    image_keep_ratio: float | None = None
    text_keep_ratio: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and name != "warmup" and not 0 <= value <= 1:
                raise UserError(f"sprint: {name} is {value}; allowed: 0 to 1")
        if self.warmup is not None and (not isinstance(self.warmup, int) or self.warmup < 1):
            raise UserError(f"sprint: warmup is {self.warmup}; allowed: a whole number from 1 on")
        others = ("r", "r_text", "r_img") if self.published else ("warmup", "image_keep_ratio", "text_keep_ratio")
        given = [name for name in others if getattr(self, name) is not None]
        if given:
            form = "the report's form: leave keep_ratio out" if self.published else "the published form: give keep_ratio too"
            raise UserError(f"sprint: {given[0]} belongs to {form}")

    @property
    def published(self) -> bool:
        """Whether this is the published code's form."""
        return self.keep_ratio is not None

    @property
    def full_steps(self) -> int:
        """Steps of a block that see everything, from 1 on; the prefix is pruned in the last one."""
        return (self.warmup or 2) if self.published else 1

    @property
    def by_modality(self) -> bool:
        """Report's form: whether text and image positions are chosen separately."""
        return self.r_text is not None or self.r_img is not None

    @property
    def text_share(self) -> float:
        return self._share if self.r_text is None else self.r_text

    @property
    def image_share(self) -> float:
        return self._share if self.r_img is None else self.r_img

    @property
    def _share(self) -> float:
        return 0.5 if self.r is None else self.r

    @property
    def keeps_text(self) -> bool:
        """Whether all text is kept."""
        return self.text_keep_ratio in (None, 1) if self.published else self.text_share == 1

    @property
    def keeps_images(self) -> bool:
        """Whether all image codes are kept."""
        return self.image_keep_ratio == 1 if self.published else self.image_share == 1

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever pruned."""
        return self.keep_ratio == 1 or (self.keeps_text and self.keeps_images)


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
