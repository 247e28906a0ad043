"""Many generations at once: every step is one forward over the open blocks of all requests under way.

Request -> `add` -> waits until there is room -> Stream -> `step` after `step` -> Generation. A request joins and leaves
between two forwards, each is at its own block and step, and its branches of guidance ride in the same forward. All new
tokens lie side by side in one stream, without padding; attention is done sequence by sequence. What a request gets
does not depend on the others: its tokens are those it gets alone (and those of `oracle.generate`).
One thread owns a BatchEngine; nothing here locks.
Axes: N tokens of the stream, D width, P open places of one request, R its branches, V vocabulary (or a part of it).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llada_uni.backbone import Backbone
from llada_uni.backbone.cached_attention import PackedCache, Span
from llada_uni.generation.guidance import combine
from llada_uni.generation.prefix import PrefixCache
from llada_uni.generation.sampling import pick
from llada_uni.generation.settings import Generation, OnStep, Settings, Task, prepare
from llada_uni.generation.sprint import likeliest
from llada_uni.generation.stream import Stream

HEAD_PLACES = 512  # places of a prefix whose logits over the whole vocabulary are in memory at once


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
    """

    def __init__(self, model: Backbone, max_rows: int = 64, prefix_cache_bytes: int = 0) -> None:
        self.model, self.max_rows = model, max_rows
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
        streams = [(ticket, stream) for ticket, stream in self._active.items() if stream.ready()]
        if streams:
            drafts = self._draft([stream for _, stream in streams])
            for (ticket, stream), (choice, confidence) in zip(streams, drafts, strict=True):
                if ticket not in self._active:  # cancelled by the listener of another request
                    continue
                try:
                    stream.settle(choice, confidence)
                except Exception as failure:
                    stream.result.failure = failure
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

        One whose prompt goes on with a block that another one computes in this very forward waits for it.
        """
        rows = sum(len(stream.branches) for stream in self._active.values())
        computed: set[Hashable] = set()
        postponed = []
        while self._waiting:
            ticket, request, task = self._waiting[0]
            if rows and rows + len(task.prompts) > self.max_rows:
                break
            self._waiting.popleft()
            stream = Stream(self.model, task, request.settings, request.generator, request.on_step)
            length = request.settings.block_length
            missing = {self.prefixes.load(branch, length) for branch in stream.branches} - {None}
            if missing & computed:
                postponed.append((ticket, request, task))
                continue
            computed |= missing
            rows += len(task.prompts)
            self._active[ticket] = stream
        self._waiting.extendleft(reversed(postponed))

    def _draft(self, streams: list[Stream]) -> list[tuple[list[int], list[float]]]:
        """One forward: for each stream the choice and the confidence at its open places."""
        tokens: list[int] = []
        positions: list[int] = []
        spans: list[Span] = []
        drafted: list[int] = []  # indices of the open places in the stream, branch by branch
        finished: list[int] = []  # those of places that become final and whose likeliest token SPRINT will ask for
        for stream in streams:
            stream.prune()
            for branch in stream.branches:
                places, ids, ends = stream.pending(branch)
                offset = len(tokens) - places.start
                cache = branch.cache if branch.pruned is None else branch.pruned
                spans.append(Span(cache, len(tokens), offset + places.stop, tuple(offset + end for end in ends)))
                drafted += [offset + column - branch.shift for column in stream.places]
                if branch.confidence is not None:
                    finished += range(offset + places.start, offset + stream.prefix(branch))
                tokens += ids
                positions += places
        device = self.model.lm_head.weight.device
        packed = torch.tensor([tokens, positions], device=device)
        wanted = torch.tensor(drafted + finished, device=device)
        states = self.model.hidden(packed[:1], packed[1:], None, PackedCache(spans), wanted)
        self._commit(streams, states[len(drafted) :])
        return self._choose(streams, self._logits(streams, states[: len(drafted)]))

    def _commit(self, streams: list[Stream], finished: Tensor) -> None:
        """Keep what is final after a forward; finished [F, D]: states of the places SPRINT will ask for, in order."""
        parts = finished.split(HEAD_PLACES) if len(finished) else ()
        confidence = torch.cat([finished.new_empty(0), *(likeliest(self.model.logits(part)) for part in parts)])
        for stream in streams:
            for branch in stream.branches:
                if branch.confidence is not None:
                    confidence = branch.take_confidence(confidence, stream.prefix(branch))
            first_forward = stream.result.evaluations == 0
            stream.commit()
            if first_forward:
                for branch in stream.branches:
                    self.prefixes.store(branch, stream.settings.block_length)

    def _logits(self, streams: list[Stream], states: Tensor) -> list[Tensor]:
        """Logits [R, P, V] of each stream for its open places, whose states [sum of R * P, D] follow one another.

        Streams that choose among the same ids share one product with that part of the head.
        """
        counts = [len(stream.branches) * len(stream.places) for stream in streams]
        parts = states.split(counts)
        groups: dict[Hashable, list[int]] = {}
        for i, stream in enumerate(streams):
            groups.setdefault(stream.choice_key, []).append(i)
        logits: list[Tensor] = [states] * len(streams)
        for members in groups.values():
            together = torch.cat([parts[i] for i in members]) if len(members) > 1 else parts[members[0]]
            scores = self.model.logits(together, streams[members[0]].choice)
            for i, part in zip(members, scores.split([counts[i] for i in members]), strict=True):
                logits[i] = part.view(len(streams[i].branches), len(streams[i].places), -1)
        return logits

    def _choose(self, streams: list[Stream], logits: list[Tensor]) -> list[tuple[list[int], list[float]]]:
        """Guide and pick for each stream; the results leave the device together."""
        choices, confidences = [], []
        for stream, scores in zip(streams, logits, strict=True):
            settings, uniform = stream.settings, stream.uniform()
            choice, confidence = pick(
                combine(scores, settings.guidance),
                None if uniform is None else uniform.to(scores.device),
                settings.temperature,
                settings.top_k,
                settings.top_p,
                stream.task.forbidden,
                settings.confidence,
            )
            choices.append(choice)
            confidences.append(confidence)
        all_choices, all_confidences = torch.cat(choices).tolist(), torch.cat(confidences).tolist()
        out, begin = [], 0
        for choice in choices:
            end = begin + len(choice)
            out.append((all_choices[begin:end], all_confidences[begin:end]))
            begin = end
        return out
