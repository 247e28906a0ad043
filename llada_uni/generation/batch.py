"""Many generations at once: every step is one forward over the open blocks of all requests under way.

Request -> `add` -> waits until there is room -> Stream -> `step` after `step` -> Generation. A request joins and leaves
between two forwards, each is at its own block and step, and its branches of guidance ride in the same forward. All new
tokens lie side by side in one stream, without padding; attention is done sequence by sequence. What a request gets
does not depend on the others: its tokens are those it gets alone (and those of `oracle.generate`).
One thread owns a BatchEngine; nothing here locks.
Axes: N tokens of the stream, D width, P open positions of one request, R its branches, V vocabulary (or a part of it).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor

from llada_uni.backbone import Backbone
from llada_uni.backbone.block_routing import BlockRouting
from llada_uni.backbone.cached_attention import PackedCache, Span
from llada_uni.generation.guidance import combine
from llada_uni.generation.prefix import PrefixCache
from llada_uni.generation.sampling import Judged, Picked, judge, pick
from llada_uni.generation.settings import Generation, OnStep, Settings, Task, prepare
from llada_uni.generation.sprint import likeliest
from llada_uni.generation.stream import Proposals, Stream

HEAD_POSITIONS = 512  # positions whose logits over the whole vocabulary are in memory at once
PREFILL = 1024  # positions of prompts that one forward computes, beside the blocks


@dataclass(frozen=True)
class Request:
    """What is to be generated; the fields are the arguments of `Engine.generate`."""

    prompt: Sequence[int]
    settings: Settings
    branches: Mapping[str, Sequence[int]] | None = None
    generator: torch.Generator | None = None
    canvas: Sequence[int] | None = None
    on_step: OnStep | None = None


class BatchEngine:
    """Generates for many requests with one backbone.

    max_rows: sequences in one forward at most, a request having one, and one more a branch of guidance; a request
    that is larger runs alone. prefix_cache_bytes: memory for prompts that later requests may share; 0: none.
    prefill: positions of prompts in one forward, at most, shared by the requests that begin; a longer prompt takes several
    forwards, so that no step of the others lasts much longer for it (a block of each branch is always computed).
    """

    def __init__(self, model: Backbone, max_rows: int = 64, prefix_cache_bytes: int = 0, prefill: int = PREFILL) -> None:
        self.model, self.max_rows, self.prefill = model, max_rows, prefill
        self.prefixes = PrefixCache(prefix_cache_bytes)
        self._waiting: deque[tuple[int, Request, Task]] = deque()
        self._active: OrderedDict[int, Stream] = OrderedDict()
        self._tickets = 0

    @property
    def active(self) -> int:
        """Requests that take part in the next forward."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    def add(self, request: Request) -> int:
        """Take a request; returns its ticket. Raises UserError or ValueError as `Engine.generate` does."""
        task = prepare(
            self.model.config,
            request.prompt,
            request.settings,
            request.branches,
            request.canvas,
            request.generator,
        )
        self._tickets += 1
        self._waiting.append((self._tickets, request, task))
        return self._tickets

    def cancel(self, ticket: int) -> bool:
        """Forget a request, which gives no result any more. False: it was finished, or never there."""
        if self._active.pop(ticket, None) is not None:
            return True
        kept = [entry for entry in self._waiting if entry[0] != ticket]
        found = len(kept) < len(self._waiting)
        self._waiting = deque(kept)
        return found

    def run(self, requests: Sequence[Request]) -> list[Generation]:
        """All these requests from beginning to end; results in their order."""
        tickets = [self.add(request) for request in requests]
        done: dict[int, Generation] = {}
        while self._active or self._waiting:
            done.update(self.step())
        return [done[ticket] for ticket in tickets]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Generation]]:
        """One forward over all requests under way; returns those that are finished: (ticket, result).

        An exception in a request's `on_step` ends that request alone; it stands in its result as `failure`. One in
        the forward itself is raised, and leaves every request where it was.
        """
        self._admit()
        streams = {ticket: stream for ticket, stream in self._active.items() if stream.ready()}
        self._share_prefill(streams.values())
        if streams:
            proposed = self._propose(list(streams.values()))
            proposing = [ticket for ticket, stream in streams.items() if stream.proposes]
            for ticket, proposals in zip(proposing, proposed, strict=True):
                if ticket not in self._active:  # cancelled by the listener of another request
                    continue
                try:
                    streams[ticket].accept(proposals)
                except Exception as failure:
                    streams[ticket].result.failure = failure
        finished = [
            (ticket, stream.result)
            for ticket, stream in self._active.items()
            if stream.result.failure is not None or not stream.ready()
        ]
        for ticket, _ in finished:
            del self._active[ticket]
        return finished

    def _admit(self) -> None:
        """Begin waiting requests while there is room, in order.

        One whose prompt goes on with a block that another one is about to compute waits for it.
        """
        rows = sum(len(stream.branches) for stream in self._active.values())
        computed = {key for stream in self._active.values() for key in stream.unstored}
        postponed = []
        while self._waiting:
            ticket, request, task = self._waiting[0]
            if rows and rows + len(task.prompts) > self.max_rows:
                break
            self._waiting.popleft()
            missing = self.prefixes.missing(task, request.settings)
            if missing & computed:
                postponed.append((ticket, request, task))
                continue
            stream = Stream(self.model, task, request.settings, request.generator, request.on_step)
            for branch in stream.branches:
                self.prefixes.load(branch, request.settings)
            stream.unstored = missing
            computed |= missing
            rows += len(task.prompts)
            self._active[ticket] = stream
        self._waiting.extendleft(reversed(postponed))

    def _share_prefill(self, streams: Collection[Stream]) -> None:
        """Tell each stream how many positions before its block the coming forward may compute."""
        beginning = sum(len(stream.branches) for stream in streams if stream.behind > stream.settings.block_length)
        for stream in streams:
            stream.plan(self.prefill // max(1, beginning))

    def _propose(self, streams: list[Stream]) -> list[Proposals]:
        """One forward: what is proposed at the open positions of each stream that reaches its block."""
        tokens: list[int] = []
        positions: list[int] = []
        spans: list[Span] = []
        limits: list[int | None] = []  # for each span, the most experts of a block
        opened: dict[Hashable, list[list[list[int]]]] = {}  # per group, stream and branch: open positions in the packed stream
        finished: list[int] = []  # those of positions that become final and whose likeliest token SPRINT will ask for
        for stream in streams:
            stream.prune()
            masked = []
            for branch in stream.branches:
                span, ids, ends = stream.pending(branch)
                if not ids:
                    continue
                offset = len(tokens) - span.start
                cache = branch.cache if branch.pruned is None else branch.pruned
                spans.append(Span(cache, len(tokens), offset + span.stop, tuple(offset + end for end in ends)))
                limits.append(stream.settings.block_experts)
                masked.append([offset + column - branch.shift for column in stream.open_columns])
                if branch.confidence is not None:
                    finished += range(offset + span.start, offset + min(span.stop, stream.prefix(branch)))
                tokens += ids
                positions += span
            if stream.proposes:
                opened.setdefault(stream.choice_key, []).append(masked)
        device = self.model.lm_head.weight.device
        packed = torch.tensor([tokens, positions], device=device)
        # Group by group, inside a group branch by branch, inside a branch stream by stream: [R, P of all its streams].
        wanted = [index for group in opened.values() for row in zip(*group, strict=True) for part in row for index in part]
        only = torch.tensor(wanted + finished, device=device, dtype=torch.int64)
        states = self.model.hidden(packed[:1], packed[1:], None, PackedCache(spans), only, self._routing(spans, limits))
        self._commit(streams, states[len(wanted) :])
        return self._choose([stream for stream in streams if stream.proposes], states[: len(wanted)])

    def _routing(self, spans: list[Span], limits: list[int | None]) -> BlockRouting | None:
        """The limit on the experts of each block of the packed stream; None where no request has one."""
        if all(limit is None for limit in limits):
            return None
        sizes, most = [], []
        for span, limit in zip(spans, limits, strict=True):
            sizes += [end - begin for begin, end in pairwise((span.start, *span.ends))]
            most += [limit or self.model.config.num_experts] * len(span.ends)
        return BlockRouting.of(sizes, most, self.model.lm_head.weight.device)

    def _commit(self, streams: list[Stream], finished: Tensor) -> None:
        """Keep what is final after a forward; finished [F, D]: states of the positions SPRINT will ask for, in order."""
        parts = finished.split(HEAD_POSITIONS) if len(finished) else ()
        confidence = torch.cat([finished.new_empty(0), *(likeliest(self.model.logits(part)) for part in parts)])
        for stream in streams:
            stream.commit()
            for branch in stream.branches:
                if branch.confidence is not None:
                    confidence = branch.take_confidence(confidence, branch.cache.length)
            stream.record_kept()
            if stream.proposes and stream.result.evaluations == 0:
                stream.unstored = set()
                for branch in stream.branches:
                    self.prefixes.store(branch, stream.settings)

    def _choose(self, streams: list[Stream], states: Tensor) -> list[Proposals]:
        """Head, guidance and choice, one call for all streams of equal settings; the results leave the device together.

        states [sum of R * P, D]: of the open positions, as `_propose` orders them.
        """
        groups: dict[Hashable, list[int]] = {}
        for i, stream in enumerate(streams):
            groups.setdefault(stream.choice_key, []).append(i)
        if not streams:
            return []
        picked, begin = [], 0
        for members in groups.values():
            first = streams[members[0]]
            end = begin + len(first.branches) * sum(len(streams[i].open_columns) for i in members)
            logits = self._guided(first, states[begin:end])
            picked.append(self._pick([streams[i] for i in members], logits))
            begin = end
        columns = (torch.cat(column).tolist() for column in zip(*picked, strict=True))
        proposed = zip(*columns, strict=True)
        order = [i for members in groups.values() for i in members]
        found = {i: Proposals(*zip(*islice(proposed, len(streams[i].open_columns)), strict=True)) for i in order}
        return [found[i] for i in range(len(streams))]

    def _guided(self, stream: Stream, states: Tensor) -> Tensor:
        """Guided logits of what may be chosen: states [R * P, D] -> [P, V], R branches of equal settings.

        The rows of the head that may not be chosen are computed only where `rescale` needs their deviation, and then for
        a few positions at once, so that the whole vocabulary of all of them is never in memory.
        """
        guidance, branches = stream.settings.guidance, len(stream.branches)
        if guidance is None or not guidance.rescales:
            return combine(self.model.logits(states, stream.choice).unflatten(0, (branches, -1)), guidance)
        parts = states.unflatten(0, (branches, -1)).split(max(1, HEAD_POSITIONS // branches), dim=1)
        return torch.cat([stream.task.restrict(combine(self.model.logits(part), guidance)) for part in parts])

    @staticmethod
    def _pick(streams: list[Stream], logits: Tensor) -> tuple[Tensor, ...]:
        """The fields of `Proposals` [P] from logits [P, V] of streams of equal settings, each with its own random numbers.

        What only rules that edit look at is computed for them alone; else the proposal stands in its place.
        """
        first, settings = streams[0], streams[0].settings
        drawn = [stream.draw() for stream in streams]
        if settings.grammar is None:
            uniform, noise = (None if row[0] is None else torch.cat(row).to(logits.device) for row in zip(*drawn, strict=True))
            sampling = (settings.temperature, settings.top_k, settings.top_p)
            picked = pick(logits, uniform, *sampling, first.task.forbidden, settings.measure, noise)
        else:
            rows = logits.split([len(stream.open_columns) for stream in streams])
            each = [stream.pick_held(row, *numbers) for stream, row, numbers in zip(streams, rows, drawn, strict=True)]
            picked = Picked(*(torch.cat(column) for column in zip(*(found for found, _ in each), strict=True)))
            logits = torch.cat([guided for _, guided in each])
        if not settings.edits:
            return (*picked, *Judged(picked.choice, picked.likeliest, picked.likeliest))
        standing = torch.cat([stream.standing() for stream in streams]).to(logits.device)
        return (*picked, *judge(logits, standing, first.task.forbidden))
