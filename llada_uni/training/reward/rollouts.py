"""Answers that the model gives while it is trained: drawn by the engine, in one batch, the same for the same seed.

Prompts, each answered G times -> requests of `generation.batch.BatchEngine` -> `Rollout`s: tokens, and when each of them was
accepted. No guidance takes part: what is drawn is what the network itself gives (arXiv:2604.18518 trains images so).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.params import Rule, Sampling
from llada_uni.generation.settings import Settings, StepEvent
from llada_uni.options import AtLeastOne, options
from llada_uni.tasks.defaults import Defaults
from llada_uni.text.tokenizer import TextTokenizer
from llada_uni.training.reward.prompts import Prompt

PREFIX_BYTES = 2**28  # memory for prompts that the answers of a group share
OPEN = -1  # in place of a step: never accepted


@options
class RolloutOptions:
    """How answers are drawn. What is None is as in the model directory's generation_config.json.

    temperature, top_p, top_k: of all answers (1, 1, 0: the network's own distribution, which the objective assumes).
    text_rule, text_threshold, text_steps, image_rule, image_threshold, image_steps: when proposals are accepted, steps a block.
    max_tokens: longest text. rows: answers in one forward at most.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    text_rule: Rule | None = None
    text_threshold: float | None = None
    text_steps: AtLeastOne | None = None
    image_rule: Rule | None = None
    image_threshold: float | None = None
    image_steps: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    rows: AtLeastOne = 256


@dataclass(frozen=True)
class Block:
    """One block of an answer. start: its first position in the answer; tokens: what came to stand there; steps: in which step
    (from 0) each was accepted, OPEN where none was.
    """

    start: int
    tokens: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Rollout:
    """One answer. tokens: of a text its end included; finished: whether it came to its end; blocks: how it was drawn."""

    tokens: tuple[int, ...]
    finished: bool
    blocks: tuple[Block, ...]
    evaluations: int

    def to_json(self) -> list[Any]:
        """Plain values, for a checkpoint."""
        blocks = [[block.start, list(block.tokens), list(block.steps)] for block in self.blocks]
        return [list(self.tokens), self.finished, blocks, self.evaluations]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Rollout:
        tokens, finished, blocks, evaluations = data
        made = (Block(start, tuple(there), tuple(steps)) for start, there, steps in blocks)
        return cls(tuple(tokens), finished, tuple(made), evaluations)


class Roller:
    """Answers prompts. model: a Backbone, or one with adapters; codes: ids (first, behind the last) of image codes."""

    def __init__(
        self, model: Any, text: TextTokenizer, codes: tuple[int, int], defaults: Defaults, options: RolloutOptions
    ) -> None:
        self.model, self.text, self.codes, self.defaults, self.options = model, text, codes, defaults, options

    def answer(self, prompts: Sequence[Prompt], seeds: Sequence[int] | None) -> list[Rollout]:
        """One answer for each prompt. seeds: one an answer; None: greedy, as the directory's settings have it otherwise."""
        recorders = [_Recorder() for _ in prompts]
        requests = []
        for number, (prompt, recorder) in enumerate(zip(prompts, recorders, strict=True)):
            generator = None if seeds is None else torch.Generator().manual_seed(seeds[number])
            settings = self.settings(prompt, greedy=seeds is None)
            requests.append(Request(prompt.ids, settings, generator=generator, on_step=recorder))
        found = BatchEngine(self.model, self.options.rows, PREFIX_BYTES).run(requests)
        answers = []
        for prompt, made, recorder in zip(prompts, found, recorders, strict=True):
            if made.failure is not None:
                raise made.failure
            ended = prompt.grid is not None or (bool(made.tokens) and made.tokens[-1] == self.text.eos_id)
            answers.append(Rollout(tuple(made.tokens), ended, recorder.blocks(), made.evaluations))
        return answers

    def sampling(self, image: bool) -> Sampling:
        """The directory's settings for text or for an image, with those of the options."""
        own: Sampling = self.defaults.generate.codes if image else self.defaults.understand.text
        kind = "image" if image else "text"
        given = {name: getattr(self.options, f"{kind}_{name}") for name in ("rule", "threshold", "steps")}
        return own.overlaid({name: value for name, value in given.items() if value is not None})

    def settings(self, prompt: Prompt, greedy: bool = False) -> Settings:
        """How a prompt is answered."""
        options, block = self.options, self.defaults.block_length
        how = self.sampling(prompt.grid is not None).sampling()
        if greedy:
            how["temperature"] = 0.0
        else:
            how |= {"temperature": options.temperature, "top_p": options.top_p, "top_k": options.top_k}
        if prompt.grid is not None:
            length = prompt.grid[0] * prompt.grid[1]
            how["steps"] = min(how["steps"], length)
            return Settings(mask_id=self.text.mask_id, block_length=block, gen_length=length, allowed=range(*self.codes), **how)
        longest = options.max_tokens or self.defaults.understand.text.max_tokens
        # To the end of a block, so that all of it is seen.
        length = -(-(len(prompt.ids) + longest) // block) * block - len(prompt.ids)
        return Settings(mask_id=self.text.mask_id, block_length=block, gen_length=length, stop_ids=(self.text.eos_id,), **how)


class _Recorder:
    """Listens to one generation and notes in which step each token was accepted."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[list[int], list[int]]] = {}  # start of a block -> its tokens, their steps

    def __call__(self, event: StepEvent) -> None:
        tokens, steps = self.found.setdefault(event.block_start, ([], [OPEN] * len(event.tokens)))
        tokens[:] = event.tokens
        for i, accepted in enumerate(event.accepted):
            if accepted and steps[i] == OPEN:
                steps[i] = event.step

    def blocks(self) -> tuple[Block, ...]:
        return tuple(Block(start, tuple(tokens), tuple(steps)) for start, (tokens, steps) in sorted(self.found.items()))
