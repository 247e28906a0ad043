"""Block-diffusion generation that computes only what has changed. Equals `oracle.generate` token for token.

Keys and values of finished blocks never change under block-causal attention, so they are computed once and
kept, for every branch of guidance in its own row of one cache. A finished block is not given a forward of its
own: its final tokens go through the model together with the first draft of the block after it, and the
prompt's with the first block. So there are as many forwards as the oracle has, and a step costs one block.
The branches run as one batch. Aligned to the end, all have their block borders in the same columns; a shorter
prompt is padded in front, and the padding is seen by no one.
Axes: R branches, T columns of this forward, S columns so far, N open places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llada_uni.backbone import Backbone, KeyValueCache
from llada_uni.backbone.masks import block_causal, with_padding
from llada_uni.generation.guidance import combine
from llada_uni.generation.sampling import pick
from llada_uni.generation.settings import Generation, OnStep, Settings, StepEvent, Task, prepare
from llada_uni.generation.unmasking import accept, quota


class Engine:
    """Generates with one backbone; holds nothing between two calls."""

    def __init__(self, model: Backbone) -> None:
        self.model = model

    @torch.inference_mode()
    def generate(
        self,
        prompt: Sequence[int],
        settings: Settings,
        branches: Mapping[str, Sequence[int]] | None = None,
        generator: torch.Generator | None = None,
        canvas: Sequence[int] | None = None,
        on_step: OnStep | None = None,
    ) -> Generation:
        """Generate an answer behind `prompt` (token ids).

        branches: the prompts of guidance, {"uncond": ids} for simple, {"no_text": ids, "no_image": ids} for
        editing.
        generator: where sampled numbers come from; the same state gives the same answer, on any device.
        canvas: gen_length tokens the answer starts from; those that are not the mask are kept as they are.
        on_step: called after every step with a StepEvent.
        Raises UserError for ids and lengths the model does not have, ValueError for a missing branch or
        generator.
        """
        task = prepare(self.model.config, prompt, settings, branches, canvas, generator)
        stream = _Stream(self.model, task, settings)
        length, stops = settings.gen_length, frozenset(settings.stop_ids)
        steps = min(settings.steps, length)
        result = Generation([])
        for begin, stop in _blocks(task, settings.block_length):
            for step in range(steps):
                if settings.early_stop and stream.stands(stops):
                    break
                places = stream.open_places(begin, stop)
                if not places:
                    break
                uniform = None
                if settings.temperature > 0:
                    uniform = torch.rand(stop - begin, generator=generator, device=generator.device)
                    uniform = uniform[[c - begin for c in places]]
                tokens, confidence = stream.draft(begin, stop, places, uniform)
                accepted = accept(confidence, quota(settings.block_length, steps, step), settings.threshold)
                for i in accepted:
                    stream.settle(places[i], tokens[i])
                result.evaluations += 1
                result.branch_evaluations += len(task.prompts)
                result.accepted.append(len(accepted))
                if on_step is not None:
                    on_step(stream.event(begin, stop, dict(zip(places, tokens, strict=True)), step))
            if stream.stands(stops):
                break
        result.tokens = stream.cut(stops)
        return result


def generate(
    model: Backbone,
    prompt: Sequence[int],
    settings: Settings,
    branches: Mapping[str, Sequence[int]] | None = None,
    generator: torch.Generator | None = None,
    canvas: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Generation:
    """`Engine(model).generate(...)`, with the signature of `oracle.generate`."""
    return Engine(model).generate(prompt, settings, branches, generator, canvas, on_step)


def _blocks(task: Task, block_length: int) -> list[tuple[int, int]]:
    """(first column, column after the last) of every block that holds a place of the answer."""
    first = task.start // block_length * block_length
    return [(b, min(b + block_length, task.end)) for b in range(first, task.end, block_length)]


class _Stream:
    """The tokens of one generation and the cache of all its branches.

    Columns are positions of the conditional prompt's sequence; cache place 0 is column `first`, which is
    below 0 where a branch is longer than it.
    """

    def __init__(self, model: Backbone, task: Task, settings: Settings) -> None:
        self.model, self.task, self.settings = model, task, settings
        weight = model.lm_head.weight
        self.device = weight.device
        rows = len(task.prompts)
        shifts = [task.shift(b) for b in range(rows)]
        self.first = min(shifts)
        hanging = task.end - task.start - settings.gen_length
        self.answer = [*task.canvas, *[settings.mask_id] * hanging]
        self.is_open = [*task.open, *[True] * hanging]
        width = task.end - self.first
        ids = [
            [settings.mask_id] * (s - self.first) + list(p) for s, p in zip(shifts, task.prompts, strict=True)
        ]
        self.ids = torch.tensor([row + self.answer for row in ids], device=self.device)  # [R, width]
        self.columns = torch.arange(self.first, task.end, device=self.device)
        shift = torch.tensor(shifts, device=self.device).unsqueeze(1)
        self.positions = (self.columns - shift).clamp(min=0)  # [R, width]
        self.valid = (
            self.columns >= shift if max(shifts) > self.first else None
        )  # [R, width], None without padding
        self.cache = KeyValueCache(model.config, rows, width, self.device, weight.dtype)
        self.choice = task.choice.to(self.device) if isinstance(task.choice, Tensor) else task.choice
        self.stale: list[int] = []  # settled columns not yet written into `ids`

    def open_places(self, begin: int, stop: int) -> list[int]:
        """Columns of the block that still hold a mask."""
        start = self.task.start
        return [c for c in range(max(begin, start), stop) if self.is_open[c - start]]

    def draft(
        self, begin: int, stop: int, places: list[int], uniform: Tensor | None
    ) -> tuple[list[int], list[float]]:
        """One forward: tokens and confidences for the open columns `places` of the block [begin, stop)."""
        self._write_settled()
        known = self.cache.length
        here = slice(known, stop - self.first)
        hidden = self.model.hidden(
            self.ids[:, here], self.positions[:, here], self._mask(begin, here), self.cache
        )
        # The block's own keys and values are those of drafts; everything before it is final now.
        self.cache.truncate(begin - self.first)
        offset = self.first + known
        index = torch.tensor([c - offset for c in places], device=self.device)
        logits = self.model.logits(hidden.index_select(1, index), self.choice)  # [R, N, V]
        settings = self.settings
        choice, confidence = pick(
            combine(logits, settings.guidance),
            None if uniform is None else uniform.to(self.device),
            settings.temperature,
            settings.top_k,
            settings.top_p,
            self.task.forbidden,
        )
        return [self.task.token_of(i) for i in choice.tolist()], confidence.tolist()

    def _mask(self, begin: int, here: slice) -> Tensor | None:
        """What the columns `here` may attend to, [R or 1, 1, T, S]; None where that is everything."""
        several = here.start + self.first < begin
        if not several and self.valid is None:
            return None
        queries, keys = self.columns[here], self.columns[: here.stop]
        if several:
            mask = block_causal(queries, keys, self.settings.block_length)
        else:
            mask = torch.ones(len(queries), len(keys), dtype=torch.bool, device=self.device)
        if self.valid is not None:
            mask = with_padding(mask, self.valid[:, : here.stop])
        else:
            mask = mask.unsqueeze(0)
        return mask.unsqueeze(1)

    def settle(self, column: int, token: int) -> None:
        """Make a draft final."""
        self.answer[column - self.task.start] = token
        self.is_open[column - self.task.start] = False
        self.stale.append(column)

    def _write_settled(self) -> None:
        if self.stale:
            tokens = [self.answer[c - self.task.start] for c in self.stale]
            index = torch.tensor([c - self.first for c in self.stale], device=self.device)
            self.ids[:, index] = torch.tensor(tokens, device=self.device)
            self.stale = []

    def stands(self, stops: frozenset[int]) -> bool:
        """Whether a stop token stands in the answer with no mask before it."""
        length = self.settings.gen_length
        return bool(stops) and self.task.has_stop(self.answer[:length], self.is_open[:length], stops)

    def event(self, begin: int, stop: int, drafts: dict[int, int], step: int) -> StepEvent:
        start = self.task.start
        shown = range(max(begin, start), min(stop, start + self.settings.gen_length))
        return StepEvent(
            shown.start - start,
            tuple(drafts.get(c, self.answer[c - start]) for c in shown),
            tuple(not self.is_open[c - start] for c in shown),
            step,
        )

    def cut(self, stops: frozenset[int]) -> list[int]:
        """The answer up to its first final stop token, or to its length."""
        for i in range(self.settings.gen_length):
            if self.answer[i] in stops and not self.is_open[i]:
                return self.answer[: i + 1]
        return self.answer[: self.settings.gen_length]
