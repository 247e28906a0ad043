"""Editing by instruction, with one or several reference pictures.

What flows through: pictures -> codes, with the instruction in the prompt -> codes of the edited picture ->
pixels.
Source: arXiv:2604.20796 and the released configuration for the template and the two scales of guidance.
"""

from __future__ import annotations

from typing import Any

from llada_uni.generation.guidance import Guidance
from llada_uni.results import ImageResult, OnProgress
from llada_uni.tasks.checks import check_grid, check_pictures, check_seed, check_words, generator_of
from llada_uni.tasks.common import (
    Clock,
    check_decoder,
    encode_pictures,
    finish,
    phases_of,
    sampling_of,
)
from llada_uni.tasks.defaults import adjusted
from llada_uni.tasks.parts import Parts
from llada_uni.text.prompts import Turn


def edit_image(
    parts: Parts,
    images: Any,
    instruction: str,
    height: int | None,
    width: int | None,
    steps: int | None,
    text_scale: float | None,
    image_scale: float | None,
    rescale: float | None,
    seed: int | None,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
    **sampling: Any,
) -> ImageResult:
    """See `UniModel.edit_image`."""
    instruction, seed = check_words(instruction, "instruction"), check_seed(seed)
    pictures = check_pictures(images)
    default, cell = parts.defaults.edit, parts.pixels_per_code
    scales = adjusted(default, text_scale=text_scale, image_scale=image_scale, rescale=rescale)
    block_length = sampling.pop("block_length", None)
    codes = adjusted(default.codes, steps=steps, **sampling)
    if height is not None or width is not None:
        check_grid(height if height is not None else cell, width if width is not None else cell, cell)
    check_decoder(parts, decoder)
    clock = Clock()
    sources = encode_pictures(parts, pictures, "edit")
    clock.lap("encode")
    grid = (
        sources[0].height if height is None else height // cell,
        sources[0].width if width is None else width // cell,
    )
    form, turns = parts.format, [Turn("user", (*sources, instruction))]
    header = form.image_header(*grid)
    guidance = Guidance.editing(scales.text_scale, scales.image_scale, scales.rescale)
    branches = {
        "no_text": [*form.unconditional("edit", turns), *header],
        "no_image": [*form.prompt("edit", form.without_images(turns)), *header],
    }
    drawn = phases_of(parts, on_progress, block_length).draw(
        [*form.prompt("edit", turns), *header],
        grid,
        sampling_of(codes),
        guidance,
        branches,
        generator_of(seed),
    )
    return finish(parts, drawn, instruction, seed, clock, decoder, decoder_steps, on_progress)
