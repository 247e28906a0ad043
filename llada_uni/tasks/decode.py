"""Codes to pixels: which decoder a request means, whether the directory has it, and the result of a task that drew codes."""

from __future__ import annotations

from typing import cast

from PIL import Image

from llada_uni.decoder.decode import Variant
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE, CODE_FEATURES, DECODERS, VAE, find_weights
from llada_uni.generation.params import CODES_ONLY, Decoding
from llada_uni.generation.phases import Drawn, Work
from llada_uni.image.codes import ImageCodes
from llada_uni.requests import Decode
from llada_uni.results import Evaluations, ImageResult, OnProgress, Progress
from llada_uni.tasks.checks import check_seed, generator_of, open_picture
from llada_uni.tasks.common import Clock, evaluations_of, own_codes
from llada_uni.tasks.parts import Parts
from llada_uni.tasks.sizes import Sized


def decode_codes(parts: Parts, request: Decode, on_progress: OnProgress | None) -> ImageResult:
    """See `UniModel.decode_codes`."""
    seed = check_seed(request.seed)
    codes = open_picture(request.codes)
    if not isinstance(codes, ImageCodes):
        raise UserError("decoding needs codes, or a file of codes (.json, .pt); this is an image already")
    if BACKBONE.there(parts.folder):  # a directory of decoders alone does not say where image tokens begin
        codes = own_codes(parts, codes)
    check_decoder(parts, request)
    clock = Clock()
    image, evaluations = decode(parts, codes, request, seed, on_progress)
    clock.lap("decode")
    return ImageResult(image, codes, "", seed, None, Evaluations(decoder=evaluations), clock.total())


def decode(
    parts: Parts,
    codes: ImageCodes,
    asked: Decoding,
    seed: int,
    on_progress: OnProgress | None = None,
    size: Sized | None = None,
) -> tuple[Image.Image, int]:
    """(image, decoder evaluations) of codes. The noise is the seed's own, whatever was drawn before. size: of the image."""
    variant, steps = parts.defaults.decode.chosen(asked)
    multiplier = asked.resolution_multiplier or parts.defaults.decode.resolution_multiplier
    total = steps if variant == "turbo" else steps - 1
    made = 0

    def count(done: int, evaluations: int) -> None:
        nonlocal made
        made = evaluations
        if on_progress is not None:
            on_progress(Progress("decode", done, total))

    image = parts.decoder.decode(
        codes, cast(Variant, variant), steps=steps, generator=generator_of(seed), on_step=count, multiplier=multiplier
    )
    return image if size is None else size.scaled(image, multiplier), made


def check_decoder(parts: Parts, asked: Decoding) -> None:
    """UserError before the codes are drawn, when the decoder asked for is not in the directory."""
    if asked.decoder == CODES_ONLY:
        return
    variant, _ = parts.defaults.decode.chosen(asked)
    there = parts.decoder.variants
    if variant not in there:
        hint = f"decoder={there[0]!r}" if there else f"decoder={CODES_ONLY!r} for codes only"
        raise UserError(f"{parts.folder} has no {variant} decoder; use {hint}")
    for name in (VAE.folder, CODE_FEATURES.folder):
        if not (parts.folder / name).is_dir():
            raise UserError(f"{parts.folder} has no {name}/, which decoding needs; use decoder={CODES_ONLY!r} for codes only")
    for part in (DECODERS[variant], VAE):
        folder = part.path(parts.folder)
        if any(folder.glob("*.safetensors*")):  # none: they are fetched when they are first needed
            find_weights(folder, part.weights)


def finish(
    parts: Parts,
    drawn: Drawn,
    asked: Decoding,
    prompt: str,
    seed: int,
    clock: Clock,
    on_progress: OnProgress | None,
    text: str | None = None,
    work: Work | None = None,
    notices: tuple[str, ...] = (),
    size: Sized | None = None,
) -> ImageResult:
    """The result of a task that drew codes: decoded to pixels of a size, unless the decoder is "none"."""
    clock.lap("codes")
    image, evaluations = None, 0
    if asked.decoder != CODES_ONLY:
        image, evaluations = decode(parts, drawn.codes, asked, seed, on_progress, size)
        clock.lap("decode")
    notices = (*notices, *(size.notices if size else ()))
    done = evaluations_of(drawn.work + (work or Work()), evaluations)
    return ImageResult(image, drawn.codes, prompt, seed, text, done, clock.total(), notices)
