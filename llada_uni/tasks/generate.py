"""Text to image, at once or after thinking.

What flows through: a prompt -> (words of thought) -> the image header -> codes -> pixels.
Source: arXiv:2604.20796 and the released configuration for templates, scales and steps.
"""

from __future__ import annotations

from typing import Any

from llada_uni.generation.guidance import Guidance
from llada_uni.generation.interleave import Work
from llada_uni.results import ImageResult, OnProgress
from llada_uni.tasks.checks import check_grid, check_seed, check_words, generator_of
from llada_uni.tasks.common import Clock, check_decoder, finish, phases_of, sampling_of
from llada_uni.tasks.defaults import adjusted
from llada_uni.tasks.parts import Parts
from llada_uni.text.prompts import Turn


def generate_image(
    parts: Parts,
    prompt: str,
    height: int | None,
    width: int | None,
    steps: int | None,
    cfg_scale: float | None,
    seed: int | None,
    thinking: bool,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
    **sampling: Any,
) -> ImageResult:
    """See `UniModel.generate_image`."""
    prompt, seed = check_words(prompt, "prompt"), check_seed(seed)
    default = parts.defaults.generate
    chosen = adjusted(default, cfg_scale=cfg_scale)
    block_length = sampling.pop("block_length", None)
    codes = adjusted(default.codes, steps=steps, **sampling)
    asked = height is not None or width is not None
    grid = check_grid(
        default.height if height is None else height,
        default.width if width is None else width,
        parts.pixels_per_code,
    )
    check_decoder(parts, decoder)
    phases = phases_of(parts, on_progress, block_length)
    form, generator, clock = parts.format, generator_of(seed), Clock()
    turns = [Turn("user", (prompt,))]
    task = "generate_thinking" if thinking else "generate"
    ids, text, work = form.prompt(task, turns), None, Work()
    if thinking:
        kept = phases.room(ids) - grid[0] * grid[1] - 4  # a thought must leave room for its picture
        written = phases.write(
            ids,
            sampling_of(default.text),
            max(1, min(default.text.max_tokens, kept)),
            generator,
        )
        said = [token for token in written.ids if form.text.is_text(token)]
        text, work = phases.engine.text, written.work
        fits = written.grid and phases.room(ids) >= len(said) + 4 + written.grid[0] * written.grid[1]
        if fits and not asked:
            grid = written.grid
        ids += said
        clock.lap("think")
    header = form.image_header(*grid)
    guidance = Guidance.simple(chosen.cfg_scale)
    # After a thought as well: a picture of nothing in particular has no thought before it.
    branches = {"uncond": [*form.unconditional("generate", turns), *header]}
    drawn = phases.draw(
        [*ids, *header],
        grid,
        sampling_of(codes),
        guidance,
        branches,
        generator,
    )
    return finish(parts, drawn, prompt, seed, clock, decoder, decoder_steps, on_progress, text, work)
