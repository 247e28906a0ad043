"""Guidance: logits of the same positions under several prompts -> one set of logits (arXiv:2604.20796).

Axes: R branches (the conditional one first, then `Guidance.branches` in order), N positions, V vocabulary (or
the part of it that may be chosen).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from llada_uni.errors import UserError
from llada_uni.generation.params import EditGuided, Guided

LEAST_DEVIATION = 1e-6  # added to the standard deviation that `rescale` divides by (released code)


@dataclass(frozen=True)
class Guidance:
    """kind "simple": u + scale * (c - u), u from the branch "uncond".

    kind "editing": n + text_scale * (c - n) + image_scale * (n - i), n from the branch "no_text" (the images
    without the text), i from "no_image" (the text without the images); off, c alone, unless a scale is above 0.
    rescale r above 0: the guided logits g become r * g * std(c) / std(g) + (1 - r) * g, with the standard deviations
    over the whole vocabulary, also where only a part of it may be chosen.
    """

    kind: str
    scale: float = 1.0
    text_scale: float = 1.0
    image_scale: float = 0.0
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("simple", "editing"):
            raise UserError(f"guidance kind is {self.kind!r}; allowed: simple, editing")
        if not 0 <= self.rescale <= 1:
            raise UserError(f"guidance rescale is {self.rescale}; allowed: 0 to 1")

    @classmethod
    def simple(cls, scale: float, rescale: float = 0.0) -> Guidance:
        """Classifier-free guidance with one scale; 1 changes nothing."""
        return cls("simple", scale=scale, rescale=rescale)

    @classmethod
    def editing(cls, text_scale: float, image_scale: float, rescale: float = 0.0) -> Guidance:
        """Guidance by text and by images; scales 1 and 0 change nothing, nor do 0 and 0."""
        return cls("editing", text_scale=text_scale, image_scale=image_scale, rescale=rescale)

    @classmethod
    def of(cls, settings: Guided | EditGuided) -> Guidance:
        """The guidance of a task's settings."""
        if isinstance(settings, Guided):
            return cls.simple(settings.cfg_scale, settings.rescale)
        return cls.editing(settings.text_scale, settings.image_scale, settings.rescale)

    @property
    def edits(self) -> bool:
        """Whether editing guidance is on: the released code leaves SPRINT out then."""
        return self.kind == "editing" and (self.text_scale > 0 or self.image_scale > 0)

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that are computed beside the conditional one: those whose factor is not 0."""
        if self.kind == "simple":
            return () if self.scale == 1 else ("uncond",)
        if not self.edits or (self.text_scale, self.image_scale) == (1, 0):
            return ()
        return ("no_text",) if self.image_scale == 0 else ("no_text", "no_image")

    @property
    def rescales(self) -> bool:
        """Whether the logits of the whole vocabulary are needed, for the standard deviations."""
        return self.rescale > 0 and bool(self.branches)


def combine(logits: Tensor, guidance: Guidance | None) -> Tensor:
    """[R, N, V] logits of the branches -> [N, V] guided ones. With `rescales` V must be the whole vocabulary."""
    given = logits[0]
    if guidance is None or not guidance.branches:
        return given
    other = logits[1]
    if guidance.kind == "simple":
        guided = other + guidance.scale * (given - other)
    else:
        guided = other + guidance.text_scale * (given - other)
        if guidance.image_scale != 0:
            guided = guided + guidance.image_scale * (other - logits[2])
    if guidance.rescale > 0:  # torch's std has Bessel's correction
        factor = given.std(-1, keepdim=True) / (guided.std(-1, keepdim=True) + LEAST_DEVIATION)
        guided = guidance.rescale * (guided * factor) + (1 - guidance.rescale) * guided
    return guided
