"""What a generation is asked for and what it gives back; checks and small rules that oracle and engine share.

prompt ids + Settings (+ branches of guidance, + canvas) -> `prepare` -> Task -> oracle or engine ->
Generation. Columns are positions of the prompt's own sequence: 0 is its first token. A branch of guidance has
a prompt of another length and is aligned to the end, so that its answer stands in the same columns
(arXiv:2604.20796; blocks are cut from column 0 for every branch, its own positions start at 0 at its own
first token).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field, SkipValidation, WithJsonSchema, model_validator

from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.generation.grammar.grammar import Grammar
from llada_uni.generation.guidance import Guidance
from llada_uni.generation.params import Blocks, Sampling, Sprint
from llada_uni.generation.unmasking import RULES

__all__ = ["Generation", "Guidance", "OnStep", "Settings", "Sprint", "StepEvent", "Task", "draw", "prepare"]


class Settings(Sampling, Blocks):
    """How one answer is generated: the settings of `params`, and what the caller knows about the answer.

    gen_length: tokens of the answer, at most (never more than so many steps are used). stop_ids: tokens that end the answer,
    itself included in it. early_stop: end as soon as a stop token stands with no mask before it, rather than with its block.
    stop_on_accept: look for that only in steps that accept a stop token, as the released loop does: the same tokens, at times
    a few steps later. allowed: ids that may be chosen (a range or any sequence), None for the whole vocabulary. overhang:
    whether the last block is whole: it runs past gen_length with masks that are filled from the same ids and dropped in the
    end, as the released code does. None: yes where the length is only a limit, no where `allowed` says what the answer
    consists of. grammar: what the text is held to; its end token is one of stop_ids.
    """

    mask_id: int
    gen_length: Annotated[int, Field(ge=1)] = 2048
    stop_ids: SkipValidation[Sequence[int]] = ()
    early_stop: bool = True
    stop_on_accept: bool = False
    allowed: SkipValidation[Sequence[int] | None] = None
    guidance: SkipValidation[Guidance | None] = None
    overhang: bool | None = None
    grammar: Annotated[SkipValidation[Grammar | None], WithJsonSchema({})] = None

    @model_validator(mode="after")
    def _something_is_allowed(self) -> Settings:
        if self.allowed is not None and not set(self.allowed) - {self.mask_id}:
            raise ValueError("allowed ids: there are none; allowed: at least one id that is not the mask")
        if self.stop_on_accept and self.edits:
            raise ValueError(f"stop_on_accept is for rules that only fill; allowed with the rule {self.rule!r}: early_stop")
        return self

    @property
    def sprints(self) -> Sprint | None:
        """SPRINT, where it takes part: the released code leaves it out while editing guidance is on."""
        edits = self.guidance is not None and self.guidance.edits
        return None if self.sprint is None or (edits and self.sprint.published) else self.sprint

    @property
    def prunes(self) -> Sprint | None:
        """SPRINT, where it prunes anything."""
        return None if self.sprints is None or self.sprints.keeps_all else self.sprints

    @property
    def unmasking(self) -> str:
        """The rule that is used."""
        published = self.sprints is not None and self.sprints.published
        return "sprint" if published and self.rule == "threshold" else self.rule

    @property
    def edits(self) -> bool:
        """Whether the rule may change tokens of the open block."""
        return RULES[self.unmasking].edits

    @property
    def samples(self) -> bool:
        """Whether random numbers are drawn."""
        return self.temperature > 0 or self.measure == "random"


@dataclass(frozen=True)
class StepEvent:
    """One step of one block, for the positions of the block that belong to the answer.

    block_start: the answer's index of the first of them. tokens: what stands there now, proposals included.
    accepted: True where the token is final; with a rule that edits, what was generated in a block is final once the block
    ends. step: number of this step in its block, from 0. confidences: how sure the model was in this step of the token shown
    for each position; 1 where it was final before.
    """

    block_start: int
    tokens: tuple[int, ...]
    accepted: tuple[bool, ...]
    step: int
    confidences: tuple[float, ...] = field(default=(), compare=False)  # rounding differs with what is computed together


OnStep = Callable[[StepEvent], None]


@dataclass
class Generation:
    """tokens: the answer, the stop token included. evaluations: forwards that gave proposals, all branches at
    once.

    branch_evaluations: the same with every branch counted. accepted: masks filled in each step. edits: tokens that were
    replaced or became masks again.
    failure: what the request's own listener raised, which ended it (requests of a BatchEngine only).
    kept: with SPRINT, the positions of the conditional prefix that each layer kept at the first pruning, [K] int64
    rising; None where there was none.
    """

    tokens: list[int]
    evaluations: int = 0
    branch_evaluations: int = 0
    accepted: list[int] = field(default_factory=list)
    edits: int = 0
    failure: Exception | None = None
    kept: list[torch.Tensor] | None = field(default=None, compare=False, repr=False)  # tensors have no truth value


@dataclass(frozen=True)
class Task:
    """A checked generation. prompts: the conditional one first, then the branches guidance needs, in its
    order.
    """

    prompts: tuple[tuple[int, ...], ...]
    canvas: tuple[int, ...]  # the answer's initial tokens
    open: tuple[bool, ...]  # which of them are to be generated
    end: int  # the column after the last one that is computed
    choice: slice | torch.Tensor | None  # rows of the vocabulary that may be chosen
    forbidden: int | None  # the mask's own index among them: a mask is no answer

    @property
    def start(self) -> int:
        """The answer's first column."""
        return len(self.prompts[0])

    def shift(self, branch: int) -> int:
        """The column of the first token of a branch; below 0 where its prompt is longer than the conditional
        one.
        """
        return self.start - len(self.prompts[branch])

    def token_of(self, index: int) -> int:
        """The vocabulary id of row `index` of the restricted logits."""
        if self.choice is None:
            return index
        if isinstance(self.choice, slice):
            return int(self.choice.start) + index
        return int(self.choice[index])

    def indices_of(self, tokens: Sequence[int]) -> torch.Tensor:
        """The rows of the restricted logits for tokens that may be chosen, [N] int64; 0 for the others."""
        ids = torch.tensor(tokens, dtype=torch.int64)
        if self.choice is None:
            return ids.clamp(min=0)
        if isinstance(self.choice, slice):
            return (ids - self.choice.start).clamp(0, self.choice.stop - self.choice.start - 1)
        return torch.searchsorted(self.choice, ids).clamp(max=len(self.choice) - 1)

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] of the whole vocabulary -> those of the rows that may be chosen."""
        if self.choice is None:
            return logits
        return logits[..., self.choice if isinstance(self.choice, slice) else self.choice.to(logits.device)]

    def stop_at(self, answer: Sequence[int], is_open: Sequence[bool], stops: frozenset[int]) -> int | None:
        """The index of the first stop token in the answer that has no mask before it, None where there is none."""
        for i, (token, masked) in enumerate(zip(answer, is_open, strict=True)):
            if masked:
                return None
            if token in stops:
                return i
        return None


def prepare(
    config: BackboneConfig,
    prompt: Sequence[int],
    settings: Settings,
    branches: Mapping[str, Sequence[int]] | None,
    canvas: Sequence[int] | None,
    generator: torch.Generator | None,
) -> Task:
    """Check everything a caller can get wrong. Raises UserError for lengths and ids, ValueError for a wrong
    call.
    """
    names = settings.guidance.branches if settings.guidance is not None else ()
    given = branches or {}
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"guidance: the branch {', '.join(missing)} is missing; given: {', '.join(given) or 'none'}")
    if settings.samples and generator is None:
        reason = "a temperature above 0" if settings.temperature > 0 else "the confidence 'random'"
        raise ValueError(f"sampling: {reason} needs a torch.Generator")
    if settings.block_experts is not None and settings.block_experts < config.num_experts_per_tok:
        least = config.num_experts_per_tok
        raise UserError(f"block_experts is {settings.block_experts}; allowed: at least {least}, the experts of a token")
    prompts = (tuple(prompt), *(tuple(given[name]) for name in names))
    content = (settings.mask_id,) * settings.gen_length if canvas is None else tuple(canvas)
    if len(content) != settings.gen_length:
        raise UserError(f"canvas: {len(content)} tokens for an answer of {settings.gen_length}; allowed: equal numbers")
    for ids in (*prompts, content, settings.stop_ids, (settings.mask_id,), settings.allowed or ()):
        outside = [i for i in ids if not 0 <= i < config.vocab_size]
        if outside:
            raise UserError(f"token {outside[0]} is unknown; allowed: 0 to {config.vocab_size - 1}")
    longest = max(map(len, prompts)) + settings.gen_length
    if longest > config.max_position_embeddings:
        raise UserError(
            f"prompt and answer take {longest} tokens; allowed: {config.max_position_embeddings}, the model's context"
        )
    if settings.grammar is not None:
        if canvas is not None or settings.allowed is not None:
            raise ValueError("grammar: the answer must be open everywhere, and all tokens allowed")
        if settings.grammar.vocabulary.end_token not in settings.stop_ids:
            raise ValueError("grammar: its end token must be one of stop_ids")
        settings.grammar.check_length(settings.gen_length)
    end = len(prompt) + settings.gen_length
    overhang = settings.overhang if settings.overhang is not None else settings.allowed is None
    if overhang:
        end = -(-end // settings.block_length) * settings.block_length
    choice, forbidden = _choice(settings)
    return Task(prompts, content, tuple(t == settings.mask_id for t in content), end, choice, forbidden)


def _choice(settings: Settings) -> tuple[slice | torch.Tensor | None, int | None]:
    """Rows of the head for the allowed ids (a slice where they are contiguous), and the mask's index among
    them.
    """
    if settings.allowed is None:
        return None, settings.mask_id
    ids = sorted(set(settings.allowed))
    forbidden = ids.index(settings.mask_id) if settings.mask_id in ids else None
    if ids[-1] - ids[0] + 1 == len(ids):
        return slice(ids[0], ids[-1] + 1), forbidden
    return torch.tensor(ids), forbidden


def draw(
    settings: Settings, generator: torch.Generator | None, length: int, wanted: Sequence[int]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The random numbers of one step, in [0, 1): what sampling takes, what the confidence "random" is; None for none.

    Drawn for all `length` positions of the block, whichever are open; the `wanted` ones are returned.
    """

    def numbers(needed: bool) -> torch.Tensor | None:
        if not needed:
            return None
        assert generator is not None  # prepare() has seen to it
        return torch.rand(length, generator=generator, device=generator.device)[list(wanted)]

    return numbers(settings.temperature > 0), numbers(settings.measure == "random")
