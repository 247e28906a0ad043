"""What every task does alike: phases of a directory's backbone, settings, progress, reading and painting
pictures.

What flows through: pictures -> codes (`encode_pictures`); codes -> pixels (`paint`); codes drawn -> a result
(`finish`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.files.model_dir import CODE_FEATURES, VAE
from llada_uni.generation.interleave import Drawn, Phases, Sampling, Work
from llada_uni.image.codes import ImageCodes
from llada_uni.results import Evaluations, ImageResult, OnProgress, Progress
from llada_uni.tasks.checks import generator_of
from llada_uni.tasks.defaults import Codes, Words, adjusted
from llada_uni.tasks.listening import Listened
from llada_uni.tasks.parts import Parts


def phases_of(
    parts: Parts, on_progress: OnProgress | None = None, block_length: int | None = None, stop: Sequence[str] = ()
) -> Phases:
    """Writing and drawing with the backbone of a directory; its engine is `Listened` to.

    block_length: None for the directory's own. stop: strings that end words. UserError for an impossible length.
    """
    length = adjusted(parts.defaults, block_length=block_length).block_length
    engine = Listened(parts.engine, parts.format, on_progress, stop)
    return Phases(engine, parts.format, parts.config.max_position_embeddings, parts.codebook_size, length)


def sampling_of(settings: Codes | Words) -> Sampling:
    return Sampling(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Sampling)})


def evaluations_of(work: Work, decoder: int = 0) -> Evaluations:
    return Evaluations(work.evaluations, work.branches, decoder)


def encode_pictures(parts: Parts, pictures: list[Image.Image | ImageCodes], mode: str) -> list[ImageCodes]:
    """Codes of pictures; those that are codes already are only checked against the codebook."""
    alone = len(pictures) == 1
    out = []
    for picture in pictures:
        if isinstance(picture, ImageCodes):
            out.append(picture.check_range(parts.codebook_size))
        else:
            out.append(parts.image_tokenizer.encode(picture, mode=mode, alone=alone))
    return out


def paint(
    parts: Parts,
    codes: ImageCodes,
    decoder: str | None,
    steps: int | None,
    seed: int,
    on_progress: OnProgress | None = None,
) -> tuple[Image.Image, int]:
    """(picture, decoder evaluations) of codes. The noise is the seed's own, whatever was drawn before."""
    chosen = adjusted(parts.defaults.decode, decoder=decoder)
    if steps is None:
        steps = chosen.turbo_steps if chosen.decoder == "turbo" else chosen.base_steps
    steps = getattr(adjusted(chosen, **{f"{chosen.decoder}_steps": steps}), f"{chosen.decoder}_steps")
    total = steps if chosen.decoder == "turbo" else steps - 1
    made = 0

    def count(done: int, evaluations: int) -> None:
        nonlocal made
        made = evaluations
        if on_progress is not None:
            on_progress(Progress("decode", done, total))

    image = parts.decoder.decode(codes, chosen.decoder, steps=steps, generator=generator_of(seed), on_step=count)
    return image, made


def check_decoder(parts: Parts, decoder: str | None) -> None:
    """UserError before the codes are drawn, when the decoder asked for is not in the directory."""
    if decoder == "none":
        return
    chosen = adjusted(parts.defaults.decode, decoder=decoder).decoder
    there = parts.decoder.variants
    if chosen not in there:
        hint = f"decoder={there[0]!r}" if there else "decoder='none' for codes only"
        raise UserError(f"{parts.folder} has no {chosen} decoder; use {hint}")
    for part in (VAE, CODE_FEATURES):
        if not part.path(parts.folder).is_dir():
            raise UserError(f"{parts.folder} has no {part.folder}/, which painting needs; use decoder='none' for codes only")


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


def finish(
    parts: Parts,
    drawn: Drawn,
    prompt: str,
    seed: int,
    clock: Clock,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
    text: str | None = None,
    work: Work | None = None,
) -> ImageResult:
    """The result of a task that drew codes: painted, unless the decoder is "none"."""
    clock.lap("codes")
    image, evaluations = None, 0
    if decoder != "none":
        image, evaluations = paint(parts, drawn.codes, decoder, decoder_steps, seed, on_progress)
        clock.lap("decode")
    done = evaluations_of(drawn.work + (work or Work()), evaluations)
    return ImageResult(image, drawn.codes, prompt, seed, text, done, clock.total())
