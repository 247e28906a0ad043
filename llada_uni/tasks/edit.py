"""Editing by instruction, with one or several reference images.

Images -> codes, with the instruction in the prompt -> codes of the edited image -> pixels.
Source: arXiv:2604.20796 and the released configuration for the template and the two scales of guidance.
"""

from __future__ import annotations

from llada_uni.generation.guidance import Guidance
from llada_uni.requests import Edit
from llada_uni.results import ImageResult, OnProgress
from llada_uni.tasks.checks import check_grid, check_pictures, check_seed, generator_of
from llada_uni.tasks.common import Clock, phases_of, settings_of
from llada_uni.tasks.decode import check_decoder, finish
from llada_uni.tasks.familiar import encode_for_change
from llada_uni.tasks.parts import Parts
from llada_uni.tasks.sizes import shaped_for_editing, sized
from llada_uni.text.prompts import Turn


def edit_image(parts: Parts, request: Edit, on_progress: OnProgress | None) -> ImageResult:
    """See `UniModel.edit_image`."""
    seed, settings, cell = check_seed(request.seed), settings_of(request, parts.defaults.edit), parts.pixels_per_code
    pictures = check_pictures(request.images)
    asked = request.given()
    other_size = settings_of(request, parts.defaults).other_size
    if other_size == "draw" or not parts.defaults.sizes:
        check_grid(asked.get("height", cell), asked.get("width", cell), cell)
    check_decoder(parts, request)
    phases, clock = phases_of(parts, request, on_progress), Clock()
    shaped = [shaped_for_editing(parts, picture, settings.fit, other_size) for picture in pictures]
    height, width = shaped[0].size
    size = sized(parts, asked.get("height", height), asked.get("width", width), other_size)
    sources, unfamiliar = encode_for_change(parts, [one.image for one in shaped])
    clock.lap("encode")
    grid = size.grid
    notices = tuple(said for one, more in zip(shaped, unfamiliar, strict=True) for said in (*one.notices, *more))
    form, turns = parts.format, [Turn("user", (*sources, request.instruction))]
    header = form.image_header(*grid)
    guidance = Guidance.of(settings)
    branches = {
        "no_text": [*form.unconditional("edit", turns), *header],
        "no_image": [*form.prompt("edit", form.without_images(turns)), *header],
    }
    prompt = [*form.prompt("edit", turns), *header]
    drawn = phases.draw(prompt, grid, settings.codes, guidance, branches, generator_of(seed))
    return finish(parts, drawn, request, request.instruction, seed, clock, on_progress, notices=notices, size=size)
