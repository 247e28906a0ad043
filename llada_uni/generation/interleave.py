"""The two things a generation is made of, writing and drawing, and the answers in which they alternate.

What flows through: prompt ids -> `Phases.write`: words until end of text or an image header -> `Phases.draw`:
exactly H*W codes -> ... `interleave` strings them together and yields each piece when it is finished. Headers
that the model gets wrong are mended (the size of the frame before), or end the answer; no answer of the model
raises. Everything here is ids; pixels are the caller's business.
Source: arXiv:2604.20796, interleaved generation; released configuration for the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llada_uni.errors import UserError
from llada_uni.generation.guidance import Guidance
from llada_uni.generation.settings import Settings
from llada_uni.generation.sprint import Sprint
from llada_uni.image.codes import ImageCodes
from llada_uni.text.prompts import UNCONDITION, PromptFormat, Turn

OnStep = Callable[[Any], None]


@dataclass(frozen=True)
class Sampling:
    """How masks are filled; the fields are those of `Settings`. steps: at most so many a block; threshold: confidence
    accepted at once.
    """

    steps: int
    threshold: float
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    rule: str = "threshold"
    confidence: str | None = None
    sprint: Sprint | None = None


@dataclass(frozen=True)
class Work:
    """Evaluations of the backbone: steps, and the same with each branch of guidance counted."""

    evaluations: int = 0
    branches: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.evaluations + other.evaluations, self.branches + other.branches)


@dataclass(frozen=True)
class Written:
    """Words. ids: without header and end; grid: what a header asked for; end: "eos", "image" or "length".

    broken: why the header is no header, or None.
    """

    ids: tuple[int, ...]
    end: str
    grid: tuple[int, int] | None = None
    broken: str | None = None
    work: Work = Work()


@dataclass(frozen=True)
class Drawn:
    """A grid of codes."""

    codes: ImageCodes
    work: Work = Work()


class Phases:
    """Writing and drawing with one backbone.

    engine: has `.generate(prompt, settings, branches=, generator=, canvas=, on_step=)`; context: most tokens
    in all;
    codebook_size: codes there are; block_length: tokens a block.
    """

    def __init__(self, engine: Any, form: PromptFormat, context: int, codebook_size: int, block_length: int = 32) -> None:
        self.engine, self.form, self.context = engine, form, context
        self.codebook_size, self.block_length = codebook_size, block_length

    def room(self, prompt: Sequence[int]) -> int:
        """Tokens that still fit behind the prompt."""
        return self.context - len(prompt)

    def write(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        generator: torch.Generator | None = None,
        images: bool = True,
        on_step: OnStep | None = None,
    ) -> Written:
        """Words behind `prompt`, at most `max_tokens` of them and what the context holds. images: a header
        may end them.

        UserError when the prompt fills the context.
        """
        length = min(max_tokens, self.room(prompt))
        if length < 1:
            raise UserError(
                f"the prompt has {len(prompt)} tokens and leaves no room for an answer: "
                f"the context of this model is {self.context} tokens"
            )
        text = self.form.text
        stops = (text.eos_id, text.boi_id) if images else (text.eos_id,)
        generation = self.engine.generate(
            list(prompt),
            self._settings(sampling, length, stop_ids=stops),
            generator=generator,
            on_step=on_step,
        )
        work = Work(generation.evaluations, generation.branch_evaluations)
        ids = list(generation.tokens)
        if ids and ids[-1] == text.eos_id:
            return Written(tuple(ids[:-1]), "eos", work=work)
        if not (images and ids and ids[-1] == text.boi_id):
            return Written(tuple(ids), "length", work=work)
        grid = self.form.read_header(ids)
        if grid is not None:
            return Written(tuple(ids[:-4]), "image", grid, work=work)
        words, sizes = _before_header(ids[:-1], self.form)
        reason = f"an image header with {len(sizes)} sizes in place of 2"
        return Written(tuple(words), "image", None, reason, work)

    def draw(
        self,
        prompt: Sequence[int],
        grid: tuple[int, int],
        sampling: Sampling,
        guidance: Guidance | None = None,
        branches: dict[str, list[int]] | None = None,
        generator: torch.Generator | None = None,
        canvas: Sequence[int | None] | None = None,
        on_step: OnStep | None = None,
    ) -> Drawn:
        """Codes of a grid (rows, columns) behind `prompt`, which ends with the image header.

        canvas: a code for every place that is fixed, None where one is to be drawn.
        UserError when prompt and grid do not fit the context.
        """
        height, width = grid
        cells = height * width
        if cells > self.room(prompt):
            raise UserError(
                f"the prompt has {len(prompt)} tokens and the image {height} x {width} codes: "
                f"more than the context of {self.context} tokens; "
                "shorten the prompt or ask for a smaller picture"
            )
        offset, mask = self.form.image_token_offset, self.form.text.mask_id
        settings = self._settings(
            sampling,
            cells,
            stop_ids=(),
            allowed=range(offset, offset + self.codebook_size),
            guidance=guidance,
        )
        fixed = None if canvas is None else [mask if code is None else offset + code for code in canvas]
        generation = self.engine.generate(
            list(prompt),
            settings,
            branches=branches or {},
            generator=generator,
            canvas=fixed,
            on_step=on_step,
        )
        codes = ImageCodes(tuple(token - offset for token in generation.tokens), height, width)
        return Drawn(codes, Work(generation.evaluations, generation.branch_evaluations))

    def _settings(self, sampling: Sampling, length: int, **more: Any) -> Settings:
        return Settings(
            block_length=self.block_length,
            steps=min(sampling.steps, length),
            threshold=sampling.threshold,
            gen_length=length,
            mask_id=self.form.text.mask_id,
            early_stop=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            rule=sampling.rule,
            confidence=sampling.confidence,
            sprint=sampling.sprint,
            **more,
        )


def _before_header(ids: list[int], form: PromptFormat) -> tuple[list[int], list[int]]:
    """(words, sizes) of ids that end with a broken header whose `<boi>` was taken off."""
    sizes = []
    while ids and form.text.size_of(ids[-1]) is not None:
        sizes.append(form.text.size_of(ids.pop()))
    if ids and ids[-1] == form.text.image_start_id:
        ids.pop()
    return ids, sizes


@dataclass(frozen=True)
class Scales:
    """Guidance of frames. first: simple guidance where there is no history; text, image, rescale: the frames
    after it.
    """

    first: float = 1.0
    text: float = 1.0
    image: float = 0.0
    rescale: float = 0.0


@dataclass(frozen=True)
class Story:
    """What an interleaved answer may be. grid: the frame size where the model names none that can be used."""

    grid: tuple[int, int]
    codes: Sampling
    words: Sampling
    max_tokens: int
    max_frames: int
    scales: Scales = Scales()


@dataclass(frozen=True)
class Text:
    """A finished stretch of words."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Frame:
    """A finished picture as codes; number from 1; repaired: what was wrong with its header, or None."""

    codes: ImageCodes
    number: int
    repaired: str | None = None


@dataclass(frozen=True)
class End:
    """reason: "finished" (end of text), "frames", "length" or "context"; work: of the whole answer."""

    reason: str
    work: Work


def interleave(
    phases: Phases,
    task: str,
    turns: Sequence[Turn],
    story: Story,
    generator: torch.Generator | None = None,
    on_step: Callable[[str, Any], None] | None = None,
) -> Iterator[Text | Frame | End]:
    """Words and frames in turn, each yielded when it is finished; the last thing yielded is always an `End`.

    on_step("text" or "codes", step of the engine). UserError, before anything is yielded, when the prompt
    fills the context.
    """
    form = phases.form
    ids = form.prompt(task, turns)
    grid, frames, work = story.grid, 0, Work()

    def steps_of(stage: str) -> OnStep | None:
        return None if on_step is None else lambda event: on_step(stage, event)

    while True:
        if frames and phases.room(ids) < 1:
            yield End("context", work)
            return
        written = phases.write(ids, story.words, story.max_tokens, generator, on_step=steps_of("text"))
        work += written.work
        words = form.text.decode(written.ids).strip()
        if words:
            yield Text(words, len(written.ids))
        if written.end != "image":
            yield End("finished" if written.end == "eos" else "length", work)
            return
        said = [token for token in written.ids if form.text.is_text(token)]
        wanted, repaired = written.grid, written.broken
        if wanted is not None and phases.room(ids) < len(said) + 5 + wanted[0] * wanted[1]:  # header, end
            repaired, wanted = f"a frame of {wanted[0]} x {wanted[1]} codes does not fit the context", None
        grid = wanted or grid
        header = form.image_header(*grid)
        start = [*ids, *said, *header]
        guidance = frame_guidance(frames, story.scales)
        branches = frame_branches(form, task, turns, ids, said, header)
        longest = max(len(start), *(len(branches[name]) for name in guidance.branches), 0)
        if longest + grid[0] * grid[1] + 1 > phases.context:
            yield End("context", work)
            return
        drawn = phases.draw(start, grid, story.codes, guidance, branches, generator, on_step=steps_of("codes"))
        work += drawn.work
        frames += 1
        yield Frame(drawn.codes, frames, repaired)
        ids = [*ids, *said, *form.image_block(drawn.codes)]
        if frames == story.max_frames:
            yield End("frames", work)
            return


def frame_guidance(frames: int, scales: Scales) -> Guidance:
    """Guidance of the next frame, when there are `frames` already: simple for the first, which has no
    history.
    """
    if frames == 0:
        return Guidance.simple(scales.first)
    return Guidance.editing(scales.text, scales.image, scales.rescale)


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
