"""Text to image, at once or after reasoning in text; one image, or the best of several candidates.

A prompt -> (reasoning text) -> the image header -> codes (of N candidates the best, judge.py) -> pixels.
Source: arXiv:2604.20796 and the released configuration for templates, scales and steps.
"""

from __future__ import annotations

from dataclasses import replace

from llada_uni.errors import UserError
from llada_uni.generation.guidance import Guidance
from llada_uni.generation.phases import Work
from llada_uni.requests import Draw
from llada_uni.results import ImageResult, OnProgress
from llada_uni.tasks.checks import check_seed, generator_of
from llada_uni.tasks.common import Clock, grammar_of_text, phases_of, plain_phases, settings_of
from llada_uni.tasks.decode import check_decoder, finish
from llada_uni.tasks.judge import Judge, best_of, varied
from llada_uni.tasks.parts import Parts
from llada_uni.tasks.sizes import sized
from llada_uni.text.prompts import Turn


def generate_image(parts: Parts, request: Draw, on_progress: OnProgress | None) -> ImageResult:
    """See `UniModel.generate_image`."""
    seed, settings = check_seed(request.seed), settings_of(request, parts.defaults.generate)
    size_given = {"height", "width"} & request.given().keys()
    other_size = settings_of(request, parts.defaults).other_size
    size = sized(parts, settings.height, settings.width, other_size)
    check_decoder(parts, request)
    if request.reasoning_regex is not None and not request.thinking:
        raise UserError("reasoning_regex is for reasoning text: set thinking")
    phases = phases_of(parts, request, on_progress)
    form, generator, clock = parts.format, generator_of(seed), Clock()
    turns = [Turn("user", (request.prompt,))]
    published = parts.defaults.as_published
    task = "generate_thinking" if request.thinking else "generate"
    ids, text, work = form.prompt(task, turns), None, Work()
    if request.thinking:
        kept = phases.room(ids) - size.grid[0] * size.grid[1] - 4  # the reasoning text must leave room for its image
        most = max(1, min(settings.text.max_tokens, kept))
        grammar = grammar_of_text(parts, request.reasoning_regex, most)  # its text ends by itself, not with an image header
        written = phases.write(ids, settings.text, most, generator, images=grammar is None, grammar=grammar)
        # A model of the published code goes on behind its own tokens, whatever they are; ours were trained on text alone.
        said = list(written.ids) if published else [token for token in written.ids if form.text.is_text(token)]
        text, work = phases.engine.text, written.work
        wanted = written.grid
        if wanted and not size_given and phases.room(ids) >= len(said) + 4 + wanted[0] * wanted[1]:
            height, width = (side * parts.pixels_per_code for side in wanted)
            size = sized(parts, height, width, "scale" if other_size == "refuse" else other_size)
        ids += said
        clock.lap("think")
    grid = size.grid
    header = form.image_header(*grid)
    guidance = Guidance.of(settings)
    # Models trained here draw nothing in particular without reasoning, also where the image has some.
    branches = {"uncond": [*form.unconditional(task if published else "generate", turns), *header]}
    if settings.n_best == 1:
        drawn = phases.draw([*ids, *header], grid, settings.codes, guidance, branches, generator)
        return finish(parts, drawn, request, request.prompt, seed, clock, on_progress, text, work, size=size)
    sampling = varied(settings.codes)
    drawn, candidates, chosen = best_of(
        lambda own: phases.draw([*ids, *header], grid, sampling, guidance, branches, generator_of(own)),
        Judge(plain_phases(parts, request), parts.defaults.understand.text),
        settings.judge_question.replace("{prompt}", request.prompt),
        seed,
        settings.n_best,
    )
    result = finish(parts, drawn, request, request.prompt, chosen, clock, on_progress, text, work, size=size)
    return replace(result, seed=seed, candidates=candidates)
