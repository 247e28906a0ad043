"""Answers in which text and images alternate.

`interleave` strings the phases of generation together and yields each piece when it is finished. Headers that the model
gets wrong are mended (the size of the frame before), or end the answer; no answer of the model raises.
Source: arXiv:2604.20796, interleaved generation; released configuration for the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llada_uni.generation.guidance import Guidance
from llada_uni.generation.params import FramesGuided, Sampling
from llada_uni.generation.phases import OnStep, Phases, Work
from llada_uni.results import EndEvent, EndReason, Evaluations, Event, ImageEvent, TextEvent
from llada_uni.text.prompts import UNCONDITION, PromptFormat, Turn


@dataclass(frozen=True)
class Plan:
    """What an interleaved answer may be. grid: the frame size where the model names none that can be used; grids: those that it
    may name, none: all.
    """

    grid: tuple[int, int]
    codes: Sampling
    text: Sampling
    max_tokens: int
    max_frames: int
    guided: FramesGuided
    grids: tuple[tuple[int, int], ...] = ()


def interleave(
    phases: Phases,
    task: str,
    turns: Sequence[Turn],
    plan: Plan,
    generator: torch.Generator | None = None,
    on_step: Callable[[str, Any], None] | None = None,
) -> Iterator[Event]:
    """Text and images in turn, each yielded when it is finished; the last thing yielded is always an `EndEvent`.

    Images are codes only; seed and seconds are the caller's business.

    on_step("text" or "codes", step of the engine). UserError, before anything is yielded, when the prompt
    fills the context.
    """
    form = phases.form
    ids = form.prompt(task, turns)
    grid, frames, work = plan.grid, 0, Work()

    def steps_of(stage: str) -> OnStep | None:
        return None if on_step is None else lambda event: on_step(stage, event)

    while True:
        if frames and phases.room(ids) < 1:
            yield _end("context", work)
            return
        written = phases.write(ids, plan.text, plan.max_tokens, generator, on_step=steps_of("text"))
        work += written.work
        words = form.text.decode(written.ids).strip()
        if words:
            yield TextEvent(words, len(written.ids))
        if written.end != "image":
            yield _end("finished" if written.end == "eos" else "length", work)
            return
        said = [token for token in written.ids if form.text.is_text(token)]
        wanted, repaired = written.grid, written.broken
        if wanted is not None and phases.room(ids) < len(said) + 5 + wanted[0] * wanted[1]:  # header, end
            repaired, wanted = f"a frame of {wanted[0]} x {wanted[1]} codes does not fit the context", None
        if wanted is not None and plan.grids and wanted not in plan.grids:
            repaired, wanted = f"the model was not trained for a frame of {wanted[0]} x {wanted[1]} codes", None
        grid = wanted or grid
        header = form.image_header(*grid)
        start = [*ids, *said, *header]
        guidance = frame_guidance(frames, plan.guided)
        branches = frame_branches(form, task, turns, ids, said, header)
        longest = max(len(start), *(len(branches[name]) for name in guidance.branches), 0)
        if longest + grid[0] * grid[1] + 1 > phases.context:
            yield _end("context", work)
            return
        drawn = phases.draw(start, grid, plan.codes, guidance, branches, generator, on_step=steps_of("codes"))
        work += drawn.work
        frames += 1
        yield ImageEvent(None, drawn.codes, frames, repaired)
        ids = [*ids, *said, *form.image_block(drawn.codes)]
        if frames == plan.max_frames:
            yield _end("frames", work)
            return


def _end(reason: EndReason, work: Work) -> EndEvent:
    return EndEvent(reason, evaluations=Evaluations(work.evaluations, work.branches))


def frame_guidance(frames: int, guided: FramesGuided) -> Guidance:
    """Guidance of the next frame, when there are `frames` already: simple for the first, which has no
    history.
    """
    if frames == 0:
        return Guidance.simple(guided.first_scale)
    return Guidance.of(guided)


def frame_branches(
    form: PromptFormat,
    task: str,
    turns: Sequence[Turn],
    history: Sequence[int],
    said: Sequence[int],
    header: Sequence[int],
) -> dict[str, list[int]]:
    """Prompts of the branches of a frame's guidance, of which only those with a factor are computed.

    uncond: a prompt of `<uncondition>` alone. no_text: the history (all before this sentence) with
    `<uncondition>` in place of the sentence. no_image: the request and the sentence without any history.
    """
    return {
        "uncond": [*form.unconditional(task, turns), *header],
        "no_text": [*history, *form.text.encode(UNCONDITION), *header],
        "no_image": [*form.prompt(task, form.without_images(turns)), *said, *header],
    }
