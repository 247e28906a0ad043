"""The state of one generation between two forwards: its answer, its block and step, its caches.

`ready` moves to the next step that needs a forward -> `plan` decides how far this forward goes -> `pending` says which
tokens of each branch are to be computed -> (the forward, by `batch`) -> `commit` keeps what is final of the caches ->
`accept` takes proposals. A finished block is not given a forward of its own: its final tokens go through the model
together with the first step of the block after it, and the prompt's with the first block. So there are as many
forwards as the oracle has; a long prompt takes some more, which propose nothing, so that others need not wait for it.
Columns are positions in the conditional prompt's sequence; those of a branch count from its own first token.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llada_uni.backbone import Backbone, KeyValueCache
from llada_uni.backbone.cache import PrunedCache
from llada_uni.generation.corrections import Corrections
from llada_uni.generation.grammar.held import HeldBlock
from llada_uni.generation.sampling import Picked
from llada_uni.generation.settings import Generation, OnStep, Settings, StepEvent, Task, draw
from llada_uni.generation.sprint import Sprint, choose_kept
from llada_uni.generation.unmasking import MASK, Step, decide


class Proposals(NamedTuple):
    """What a forward says about the open columns of a stream, [P] each: the fields of `sampling.Picked` and `Judged`."""

    choice: Sequence[int]
    confidence: Sequence[float]
    likeliest: Sequence[float]
    rival: Sequence[int]
    certainty: Sequence[float]
    own: Sequence[float]


class Branch:
    """One prompt of a generation and what is known of its sequence.

    cache: final keys and values, from its first token on. confidence: for SPRINT, the probability of the likeliest
    token at the first `measured` of those positions. pruned: what the steps of the present block see of the prefix;
    None in its first one.
    """

    def __init__(self, model: Backbone, task: Task, index: int, prunes: bool) -> None:
        self.prompt, self.shift = task.prompts[index], task.shift(index)
        weight = model.lm_head.weight
        capacity = task.end - self.shift
        self.cache = KeyValueCache(model.config, 1, capacity, weight.device, weight.dtype)
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self.confidence = torch.empty(capacity, device=weight.device, dtype=wide) if prunes else None
        self.measured = 0
        self.pruned: PrunedCache | None = None

    def take_confidence(self, numbers: Tensor, length: int) -> Tensor:
        """Take the first of these for the positions up to `length` that have none; returns the rest."""
        assert self.confidence is not None  # only a branch that prunes measures
        new = length - self.measured
        self.confidence[self.measured : length] = numbers[:new]
        self.measured = length
        return numbers[new:]

    def choose(self, answer: Sequence[int], sprint: Sprint, first_code: int) -> list[Tensor] | None:
        """For every layer the committed positions [K] that SPRINT keeps; None where that is all of them at a glance."""
        length = self.cache.length
        ids = [*self.prompt, *answer[: max(0, length - len(self.prompt))]][:length]
        if sprint.keeps_all or (sprint.keeps_text and max(ids, default=0) < first_code):
            return None
        assert self.confidence is not None  # the branch prunes
        is_image = torch.tensor(ids, dtype=torch.int64, device=self.confidence.device) >= first_code
        keys = self.cache.keys[:, 0, :, :length]  # [layers, H, P, d]
        return [choose_kept(layer, self.confidence[:length], is_image, sprint) for layer in keys]

    def prune(self, answer: Sequence[int], sprint: Sprint, first_code: int, room: int) -> None:
        """Choose what later steps see of the committed positions (SPRINT)."""
        chosen = self.choose(answer, sprint, first_code)
        if chosen is not None:
            self.pruned = self.cache.pruned(chosen, room)


class Stream:
    """One generation under way. `begin`, `stop`: the columns of the present block; `step`: its next step."""

    def __init__(
        self,
        model: Backbone,
        task: Task,
        settings: Settings,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.task, self.settings, self.generator, self.on_step = task, settings, generator, on_step
        self.first_code = model.config.image_token_offset
        self.steps = min(settings.steps, settings.gen_length)
        self.stops = frozenset(settings.stop_ids)
        hanging = task.end - task.start - settings.gen_length
        self.answer = [*task.canvas, *[settings.mask_id] * hanging]
        self.is_open = [*task.open, *[True] * hanging]
        self.editable = tuple(self.is_open)  # what is not given
        prunes = settings.prunes is not None
        self.branches = [Branch(model, task, i, prunes) for i in range(len(task.prompts))]
        device = model.lm_head.weight.device
        self.choice = task.choice.to(device) if isinstance(task.choice, Tensor) else task.choice
        # Streams of equal keys choose in one call.
        sampling = (settings.temperature, settings.top_k, settings.top_p, settings.measure)
        kind = (settings.edits, settings.grammar is None)
        self.choice_key = (_key_of(task.choice), task.forbidden, settings.guidance, *kind, *sampling)
        self.begin = task.start // settings.block_length * settings.block_length
        self.step = 0
        self.corrections = Corrections(settings, self.steps)
        self.unstored: set[Hashable] = set()  # keys of blocks of its prompts that the prefix cache will get from it
        self.open_columns: list[int] = []  # columns of the block that the rule may change in this step
        self.stop_accepted = False  # whether the last step accepted a stop token
        self.proposes = True  # whether the coming forward reaches the block
        self.limit = 0  # positions of each branch it may compute before the block
        self.result = Generation([])

    @property
    def stop(self) -> int:
        return min(self.begin + self.settings.block_length, self.task.end)

    def ready(self) -> bool:
        """Move to the next step that needs a forward. False: the answer is finished, and stands in `result`."""
        while self.begin < self.task.end:
            if self.step < self.corrections.limit and not self._settled():
                self.open_columns = self._asked_columns()
                return True
            if self._stop_at() is not None:
                break
            self.begin += self.settings.block_length
            self.step, self.corrections = 0, Corrections(self.settings, self.steps)
            for branch in self.branches:
                branch.pruned = None
        self.result.tokens = self._cut()
        return False

    @property
    def behind(self) -> int:
        """Places before the present block that are still to be computed, of the branch that has most of them."""
        return max(self.prefix(branch) - branch.cache.length for branch in self.branches)

    def plan(self, limit: int) -> None:
        """Let the coming forward compute at most `limit` positions of a branch, or one block, before the present block.

        Where that does not reach the block, the forward proposes nothing.
        """
        self.limit = limit
        self.proposes = self.behind <= max(limit, self.settings.block_length)

    def pending(self, branch: Branch) -> tuple[range, list[int], list[int]]:
        """(positions of the branch to compute, their tokens, the ends of their blocks) for the coming forward."""
        length = self.settings.block_length
        first = branch.cache.length
        border = (first + branch.shift) // length * length + length - branch.shift
        last = self.stop - branch.shift
        if not self.proposes:
            whole = max(0, first + self.limit - border) // length
            last = max(first, min(self.prefix(branch), border + whole * length))
        answered = first - len(branch.prompt)
        head = branch.prompt[first:last] if answered < 0 else ()
        tokens = [*head, *self.answer[max(0, answered) : max(0, last - len(branch.prompt))]]
        return range(first, last), tokens, [*range(border, last, length), last]

    def prune(self) -> None:
        """SPRINT: after the first steps of a block its prefix is pruned, once."""
        sprint = self.settings.prunes
        if sprint is None or self.step < sprint.full_steps:
            return
        for branch in self.branches:
            if branch.pruned is None:
                branch.prune(self.answer, sprint, self.first_code, self.settings.block_length)

    def commit(self) -> None:
        """After a forward: everything before the block is final, the block's own keys and values are not."""
        for branch in self.branches:
            if branch.pruned is None:
                branch.cache.truncate(min(branch.cache.length, self.prefix(branch)))

    def record_kept(self) -> None:
        """SPRINT: note what the first pruning keeps, whether or not a later step of the block uses it."""
        sprint, branch = self.settings.sprints, self.branches[0]
        if sprint is None or self.result.kept is not None or not self.proposes or self.step != sprint.full_steps - 1:
            return
        if self.prefix(branch) > 0:
            chosen = branch.choose(self.answer, sprint, self.first_code)
            everything = torch.arange(branch.cache.length, device=branch.cache.keys.device)
            self.result.kept = [everything] * len(branch.cache.keys) if chosen is None else chosen

    def prefix(self, branch: Branch) -> int:
        """Places of the branch before the present block."""
        return max(0, self.begin - branch.shift)

    def draw(self) -> tuple[Tensor | None, Tensor | None]:
        """The random numbers of this step, see `settings.draw`."""
        return draw(self.settings, self.generator, self.stop - self.begin, [c - self.begin for c in self.open_columns])

    def held(self) -> HeldBlock | None:
        """The block under the grammar of the settings, None where there is none."""
        if self.settings.grammar is None:
            return None
        return HeldBlock(self.settings.grammar, self.answer, self.is_open, self._block(), self.settings.gen_length)

    def pick_held(self, logits: Tensor, uniform: Tensor | None, noise: Tensor | None) -> tuple[Picked, Tensor]:
        """`HeldBlock.pick` at the open columns, from their logits [P, V] and the random numbers of this step."""
        held = self.held()
        assert held is not None, "only streams with a grammar come here"
        asked = [column - self.task.start for column in self.open_columns]
        uniform = None if uniform is None else uniform.to(logits.device)
        return held.pick(asked, logits, uniform, self.settings, self.task.forbidden, noise)

    def standing(self) -> Tensor:
        """The rows of the restricted logits of what stands at the open columns, [P] int64; any row for a mask."""
        return self.task.indices_of([self.answer[c - self.task.start] for c in self.open_columns])

    def accept(self, proposals: Proposals) -> None:
        """Take the proposals for the open columns: change some, tell the listener, count."""
        start, is_open = self.task.start, self.is_open
        places = [c - start for c in self.open_columns]
        now = Step(
            proposals.confidence,
            self.settings.threshold,
            self.settings.block_length,
            self.steps,
            self.step,
            proposals.likeliest,
            [self.task.token_of(i) for i in proposals.choice],
            [MASK if is_open[i] else self.answer[i] for i in places],
            [self.task.token_of(i) for i in proposals.rival],
            proposals.certainty,
            proposals.own,
            self.settings.edit_bound,
            self.corrections.budget(self.step),
        )
        changes = decide(self.settings.unmasking, now)
        held = self.held()
        if held is not None:
            kept = held.kept({places[n]: None if token == MASK else token for n, token in changes.items()})
            changes = {n: token for n, token in changes.items() if places[n] in kept}
        was_full = not any(is_open[i] for i in self._watched())
        filled = sum(is_open[places[n]] for n in changes)
        self.stop_accepted = any(token in self.stops for token in changes.values())
        for n, token in changes.items():
            self.answer[places[n]] = self.settings.mask_id if token == MASK else token
            is_open[places[n]] = token == MASK
        self.corrections.note({places[n]: token for n, token in changes.items()}, was_full)
        self.result.evaluations += 1
        self.result.branch_evaluations += len(self.branches)
        self.result.accepted.append(filled)
        self.result.edits += len(changes) - filled
        self.step += 1
        if self.on_step is not None:
            self.on_step(self._event({i: now.shown(n, changes) for n, i in enumerate(places)}))

    def _block(self) -> range:
        """The answer's indices of the present block."""
        return range(max(self.begin - self.task.start, 0), self.stop - self.task.start)

    def _asked_columns(self) -> list[int]:
        """The columns of the block that the rule may change: those with a mask, or all that are not given."""
        asked = self.editable if self.settings.edits else self.is_open
        return [i + self.task.start for i in self._block() if asked[i]]

    def _stop_at(self) -> int | None:
        """The answer's index of its first stop token with no mask before it."""
        length = self.settings.gen_length
        return self.task.stop_at(self.answer[:length], self.is_open[:length], self.stops) if self.stops else None

    def _watched(self) -> range:
        """The answer's indices of the block that must be final before it ends: all, or those up to the stop token."""
        block, settings = self._block(), self.settings
        looks = settings.early_stop and (self.stop_accepted or not settings.stop_on_accept)
        last = self._stop_at() if looks else None
        return block if last is None else range(block.start, min(block.stop, last + 1))

    def _settled(self) -> bool:
        """Whether the block, or its part up to the stop token, is final."""
        watched = self._watched()
        return not any(self.is_open[i] for i in watched) and self.corrections.settled(watched)

    def _event(self, shown: dict[int, tuple[int, float]]) -> StepEvent:
        """shown: what to show at each position (index in the answer) that could change in this step, and how sure it is."""
        block = self._block()
        places = block[: max(0, self.settings.gen_length - block.start)]
        there = [shown.get(i, (self.answer[i], 1.0)) for i in places]
        final = not self.settings.edits or self.step == self.corrections.limit or self._settled()
        return StepEvent(
            block.start,
            tuple(token for token, _ in there),
            tuple(not self.is_open[i] and (final or not self.editable[i]) for i in places),
            self.step - 1,
            tuple(certainty for _, certainty in there),
        )

    def _cut(self) -> list[int]:
        """The answer up to its first final stop token, or to its length."""
        for i in range(self.settings.gen_length):
            if self.answer[i] in self.stops and not self.is_open[i]:
                return self.answer[: i + 1]
        return self.answer[: self.settings.gen_length]


def _key_of(choice: slice | Tensor | None) -> Hashable:
    """Equal for generations that choose among the same rows of the head."""
    if isinstance(choice, slice):
        return (choice.start, choice.stop)
    return None if choice is None else tuple(choice.tolist())
