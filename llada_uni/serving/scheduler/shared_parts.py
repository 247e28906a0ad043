"""The parts of a model directory as one job of many sees them: the ordinary task code runs on these unchanged.

A task's calls of `engine`, `image_tokenizer` and `decoder` -> the model thread's batch, or the real
network when one of a few lanes is free. Every call asks whether the job is to end. Tokens are counted on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from llada_uni.decoder.decode import ImageDecoder, Variant
from llada_uni.generation.batch import Request
from llada_uni.generation.grammar.grammar import Grammars
from llada_uni.generation.settings import Generation, OnStep, Settings
from llada_uni.image.codes import ImageCodes
from llada_uni.image.tokenizer import ImageTokenizer, Mode
from llada_uni.serving.scheduler.lanes import Lanes
from llada_uni.serving.scheduler.lanes import OnStep as DecoderStep
from llada_uni.serving.scheduler.model_thread import Check, ModelThread
from llada_uni.tasks.parts import Parts

LIGHT = ("defaults", "config", "text", "format", "codebook_size", "pixels_per_code", "drafter")  # shared as they are


class SharedEngine:
    """`Engine.generate` through the model thread. prompt_tokens: of the first call; tokens: of all answers; *_codes: how
    many of either are codes of images, whose ids begin at `first_code`.
    """

    def __init__(self, thread: ModelThread, check: Check, first_code: int) -> None:
        self.thread, self.check, self.first_code = thread, check, first_code
        self.prompt_tokens: int | None = None
        self.prompt_codes, self.tokens, self.codes = 0, 0, 0

    def generate(
        self,
        prompt: Sequence[int],
        settings: Settings,
        branches: Mapping[str, Sequence[int]] | None = None,
        generator: torch.Generator | None = None,
        canvas: Sequence[int] | None = None,
        on_step: OnStep | None = None,
    ) -> Generation:
        """See `Engine.generate`."""
        if self.prompt_tokens is None:
            self.prompt_tokens, self.prompt_codes = len(prompt), self._codes_in(prompt)
        made = self.thread.generate(Request(prompt, settings, branches, generator, canvas, on_step), self.check)
        self.tokens += len(made.tokens)
        self.codes += self._codes_in(made.tokens)
        return made

    def _codes_in(self, ids: Sequence[int]) -> int:
        return sum(token >= self.first_code for token in ids)


class SharedImageTokenizer:
    """What tasks ask of an `ImageTokenizer`, in a lane."""

    def __init__(self, tokenizer: ImageTokenizer, lanes: Lanes, check: Check) -> None:
        self._tokenizer, self._lanes, self._check = tokenizer, lanes, check
        self.settings = tokenizer.settings

    def encode(self, picture: Image.Image, mode: Mode = "understand", alone: bool = True) -> ImageCodes:
        with self._lanes.lane():
            self._check()
            return self._tokenizer.encode(picture, mode, alone)

    def encode_with_nearness(
        self, picture: Image.Image, mode: Mode = "understand", alone: bool = True
    ) -> tuple[ImageCodes, float]:
        with self._lanes.lane():
            self._check()
            return self._tokenizer.encode_with_nearness(picture, mode, alone)


class SharedDecoder:
    """`ImageDecoder.decode`, in a lane."""

    def __init__(self, decoder: ImageDecoder, lanes: Lanes, check: Check) -> None:
        self._decoder, self._lanes, self._check = decoder, lanes, check
        self.variants = decoder.variants

    def decode(
        self,
        codes: ImageCodes,
        variant: Variant,
        steps: int,
        generator: torch.Generator,
        on_step: DecoderStep,
        multiplier: int,
    ) -> Image.Image:
        return self._lanes.decode(self._decoder, codes, variant, steps, generator, self._check, on_step, multiplier)


class SharedParts(Parts):
    """Parts of one job. parts: the real ones, whose networks are in memory; check: raises when the job is to end."""

    def __init__(self, parts: Parts, thread: ModelThread, lanes: Lanes, check: Check) -> None:
        super().__init__(parts.folder, parts.device, parts.dtype, parts.quantization, parts.offload, parts.tile)
        vars(self).update({name: getattr(parts, name) for name in LIGHT})
        self._parts = parts
        self.counting = SharedEngine(thread, check, parts.config.image_token_offset)  # the tokens of this job
        vars(self).update(engine=self.counting, decoder=SharedDecoder(parts.decoder, lanes, check))
        if "image_tokenizer" in parts.loaded:  # else the ordinary property says what is missing
            vars(self)["image_tokenizer"] = SharedImageTokenizer(parts.image_tokenizer, lanes, check)

    @property
    def grammars(self) -> Grammars:  # type: ignore[override]
        """Those of all jobs, read when the first one asks."""
        return self._parts.grammars
