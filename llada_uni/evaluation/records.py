"""A suite of anybody's conversation records (docs/data.md): the model answers what the user asks, texts are compared.

Records -> one question for each answer that is learned and is text, with the turns before it as they stand
in the record -> the model's answer -> scores of metrics.py, by class. Equal questions about one image (several captions of it)
are asked once and may be answered in any of the ways given. Answers that are images are left out and counted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from llada_uni.data.records import BadRecords, Conversation, Message
from llada_uni.data.sources import RecordSource, conversations
from llada_uni.errors import UserError
from llada_uni.evaluation.answers import text_of
from llada_uni.evaluation.metrics import METRICS
from llada_uni.evaluation.suite import Calls, Judged, Plan, Question, with_changes

BY = ("mix", "answer")
_CALLS: Calls = {"understand": {}, "chat": {}}
_Turn = tuple[str, list[str | Image.Image]]


@dataclass
class _Asked:
    """One question. turns: the last is by the user; where: file and line of the record; number: among all; right: answers."""

    turns: tuple[Message, ...]
    mix: str
    where: str
    number: int
    right: list[str] = field(default_factory=list)


class RecordSuite:
    """Text answers of records. by: classes are the records' `mix` names (by default their tasks), or the answers themselves.

    metric: the one of METRICS that is the overall score; all are reported. UserError when no record has a text answer.
    """

    splits: tuple[str, ...] = ()
    head: str | None = None

    def __init__(self, source: RecordSource, by: str = "mix", metric: str = "exact", bad: BadRecords | None = None) -> None:
        for value, allowed in ((by, BY), (metric, METRICS)):
            if value not in allowed:
                raise UserError(f"{value!r} is no choice here; allowed: {', '.join(allowed)}")
        self.name, self.by, self.metric = "records", by, metric
        self.meaning = f"{metric} score of text answers, mean over {'tasks or mix names' if by == 'mix' else 'right answers'}"
        self.bad, self.left_out = bad or BadRecords("stop"), Counter[str]()
        self._asked = self._read(source)
        if not self._asked:
            found = ", ".join(f"{count} of {task}" for task, count in self.left_out.items()) or "no record at all"
            raise UserError(f"no record has a text answer to compare with ({found})")

    def _read(self, source: RecordSource) -> list[_Asked]:
        asked: dict[object, _Asked] = {}
        for conversation in conversations(source, self.bad):
            for turns, answer in _answers(conversation):
                if answer.pictures():
                    self.left_out[conversation.mix] += 1
                    continue
                one = asked.setdefault(turns, _Asked(turns, conversation.mix, conversation.where, len(asked)))
                one.right.append(answer.text())
        return list(asked.values())

    def _chosen(self, plan: Plan) -> list[_Asked]:
        """A random sample where there are more than the limit: records often stand sorted by class."""
        if plan.limit is None or plan.limit >= len(self._asked):
            return self._asked
        return sorted(random.Random(plan.seed).sample(self._asked, plan.limit), key=lambda one: one.number)

    def total(self, plan: Plan) -> int:
        return len(self._chosen(plan))

    def calls(self, plan: Plan) -> Calls:
        return with_changes(_CALLS, plan.calls)

    def questions(self, plan: Plan) -> Iterator[Question]:
        calls = self.calls(plan)
        for one in self._chosen(plan):
            try:
                opened = [(turn.role, _opened(turn)) for turn in one.turns]
            except UserError as error:  # a fault of the record, not of the model
                self.bad.add(one.where, error)
                continue
            key = one.mix if self.by == "mix" else one.right[0]
            ask = partial(self._ask, one, opened, plan.seed + one.number, calls)
            yield Question("", key, one.turns[-1].text(), ask)

    def _ask(self, one: _Asked, opened: list[_Turn], seed: int, calls: Calls, model: Any) -> Judged:
        images = [part for _, parts in opened for part in parts if isinstance(part, Image.Image)]
        if len(opened) == 1 and images:
            result = model.understand(images, one.turns[0].text(), seed=seed, **calls["understand"])
        else:
            messages = [{"role": role, "content": parts} for role, parts in opened]
            result = model.chat(messages, seed=seed, **calls["chat"])
        said = text_of(result)
        scores = {name: measure(said, one.right) for name, measure in METRICS.items()}
        scores["right"] = scores[self.metric]
        shown = [(f"image {number}", image) for number, image in enumerate(images, 1)]
        return Judged(one.turns[-1].text(), scores, " | ".join(one.right), said, shown)

    def facts(self, judged: Sequence[Judged]) -> dict[str, Any]:
        return {"left_out": dict(self.left_out), "bad": list(self.bad.found)}


def _answers(conversation: Conversation) -> Iterator[tuple[tuple[Message, ...], Message]]:
    """(the turns before it, the answer) of every answer that is learned."""
    messages = conversation.messages
    for end in range(1, len(messages), 2):
        if conversation.learn_all or end == len(messages) - 1:
            yield messages[:end], messages[end]


def _opened(turn: Message) -> list[str | Image.Image]:
    return [part if isinstance(part, str) else part.open() for part in turn.parts]
