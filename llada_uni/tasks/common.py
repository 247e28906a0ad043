"""What every task does alike: its settings, the phases of a directory's backbone, reading images, the clock.

A request over the directory's defaults -> settings (`settings_of`); images -> codes (`encode_pictures`).
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

from PIL import Image

from llada_uni.checked import Checked
from llada_uni.generation.grammar.grammar import Grammar, expression_of
from llada_uni.generation.phases import Phases, Work
from llada_uni.image.codes import ImageCodes
from llada_uni.image.tokenizer import Mode
from llada_uni.requests import Chat, Request, Understand
from llada_uni.results import Evaluations, OnProgress
from llada_uni.tasks.listening import Listened
from llada_uni.tasks.parts import Parts

C = TypeVar("C", bound=Checked)


def settings_of(request: Request, defaults: C) -> C:
    """The directory's `defaults` for a task with what the request says; what they have no place for is left out."""
    return defaults.overlaid({name: value for name, value in request.changes().items() if name in type(defaults).model_fields})


def phases_of(parts: Parts, request: Request, on_progress: OnProgress | None = None) -> Phases:
    """Writing and drawing with the backbone of a directory, as the request wants it; its engine is `Listened` to."""
    return plain_phases(parts, request, Listened(parts.engine, parts.format, on_progress, getattr(request, "stop", ())))


def plain_phases(parts: Parts, request: Request, engine: Any = None) -> Phases:
    """The same with another engine; None: the directory's own, to which nobody listens."""
    length = settings_of(request, parts.defaults).block_length
    whole = parts.defaults.as_published
    context, codes = parts.config.max_position_embeddings, parts.codebook_size
    return Phases(engine or parts.engine, parts.format, context, codes, length, whole)


def grammar_of(parts: Parts, request: Understand | Chat, most: int) -> Grammar | None:
    """What a request holds its text to. UserError for a grammar that cannot be kept, or not within `most` tokens."""
    return grammar_of_text(parts, expression_of(request.regex, request.json_schema, request.choices), most)


def grammar_of_text(parts: Parts, regex: str | None, most: int) -> Grammar | None:
    """The same for an expression; None where there is none."""
    if regex is None:
        return None
    grammar = parts.grammars.of(regex)
    grammar.check_length(most)
    return grammar


def evaluations_of(work: Work, decoder: int = 0) -> Evaluations:
    return Evaluations(work.evaluations, work.branches, decoder)


def encode_pictures(parts: Parts, pictures: list[Image.Image | ImageCodes], mode: Mode) -> list[ImageCodes]:
    """Codes of pictures; those that are codes already are only checked against the codebook."""
    alone = len(pictures) == 1
    out = []
    for picture in pictures:
        if isinstance(picture, ImageCodes):
            out.append(own_codes(parts, picture))
        else:
            out.append(parts.image_tokenizer.encode(picture, mode=mode, alone=alone))
    return out


def own_codes(parts: Parts, codes: ImageCodes) -> ImageCodes:
    """Codes that were given, checked against the codebook; tokens of the backbone (published files) become codes."""
    return codes.without_offset(parts.config.image_token_offset, parts.codebook_size).check_range(parts.codebook_size)


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self.start}
