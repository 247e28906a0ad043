"""The two things that a generation is made of: writing text and drawing images as codes.

Prompt ids -> `Phases.write`: text until end of text or an image header; prompt ids with a header -> `Phases.draw`: exactly
H*W codes. Everything here is ids; pixels are the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llada_uni.errors import UserError
from llada_uni.generation.grammar.grammar import Grammar
from llada_uni.generation.guidance import Guidance
from llada_uni.generation.params import Sampling
from llada_uni.generation.settings import Settings
from llada_uni.image.codes import ImageCodes
from llada_uni.text.prompts import PromptFormat

OnStep = Callable[[Any], None]


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
    codebook_size: codes there are; block_length: tokens a block. whole_last_block: whether the last block of an image is
    denoised whole, with codes behind its last one that are dropped in the end (published code).
    """

    def __init__(
        self,
        engine: Any,
        form: PromptFormat,
        context: int,
        codebook_size: int,
        block_length: int = 32,
        whole_last_block: bool = False,
    ) -> None:
        self.engine, self.form, self.context = engine, form, context
        self.codebook_size, self.block_length, self.whole_last_block = codebook_size, block_length, whole_last_block

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
        grammar: Grammar | None = None,
    ) -> Written:
        """Words behind `prompt`, at most `max_tokens` of them and what the context holds. images: a header
        may end them. grammar: what the words are held to.

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
            self._settings(sampling, length, stop_ids=stops, grammar=grammar),
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
            overhang=self.whole_last_block,
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
        how = {**sampling.sampling(), "steps": min(sampling.steps, length)}
        return Settings(
            mask_id=self.form.text.mask_id, block_length=self.block_length, gen_length=length, early_stop=True, **how, **more
        )


def _before_header(ids: list[int], form: PromptFormat) -> tuple[list[int], list[int]]:
    """(words, sizes) of ids that end with a broken header whose `<boi>` was taken off."""
    sizes: list[int] = []
    while ids and (size := form.text.size_of(ids[-1])) is not None:
        sizes.append(size)
        ids.pop()
    if ids and ids[-1] == form.text.image_start_id:
        ids.pop()
    return ids, sizes
