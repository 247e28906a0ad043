"""Checks conversation records before time is spent on them: every record parsed, every picture opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from llada_uni.data.records import BadRecords, Conversation
from llada_uni.data.sources import RecordSource, conversations
from llada_uni.errors import UserError
from llada_uni.text.tokenizer import TextTokenizer


@dataclass
class TaskCount:
    """What the good records of one task (or `mix` name) hold. tokens: of their texts, without templates and pictures."""

    records: int = 0
    answers: int = 0
    pictures: int = 0
    tokens: int = 0


@dataclass
class Report:
    """tasks: by mix name; bad: a line for every unusable record; sizes: (width, height) -> number of pictures."""

    tasks: dict[str, TaskCount] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def records(self) -> int:
        """Good records."""
        return sum(count.records for count in self.tasks.values())


def check_records(
    source: RecordSource,
    limit: int | None = None,
    text: TextTokenizer | None = None,
    on_record: Callable[[int], None] | None = None,
    longest: int | None = None,
) -> Report:
    """Checks the first `limit` records that can be parsed (None: all). text: counts tokens too; on_record(good so far).

    An id that comes again is bad: most often a shard that was written twice. longest: with `text`, a record whose texts take
    more tokens than this is bad too.
    """
    report, bad = Report(), BadRecords("skip")
    report.bad = bad.found
    opened: dict[object, tuple[int, int]] = {}
    ids: set[int] = set()  # hashes: the ids of millions of records would fill the memory
    for number, conversation in enumerate(conversations(source, bad), 1):
        try:
            if hash(conversation.id) in ids:
                raise UserError(f"the id {conversation.id} has been taken by a record before this one")
            ids.add(hash(conversation.id))
            _count(conversation, report, opened, text, longest)
        except UserError as error:
            bad.add(conversation.where, error)
        if on_record is not None:
            on_record(report.records)
        if number == limit:
            break
    return report


def _count(
    conversation: Conversation,
    report: Report,
    opened: dict[object, tuple[int, int]],
    text: TextTokenizer | None,
    longest: int | None,
) -> None:
    pictures = list(conversation.pictures())
    for picture in pictures:
        if picture not in opened:
            opened[picture] = picture.open().size
            report.sizes[opened[picture]] += 1
    tokens = 0 if text is None else sum(len(text.encode(said)) for said in conversation.texts())
    if longest is not None and tokens > longest:
        raise UserError(f"its texts take {tokens} tokens; allowed: {longest}")
    count = report.tasks.setdefault(conversation.mix, TaskCount())
    count.records += 1
    count.answers += len(conversation.messages) // 2 if conversation.learn_all else 1
    count.pictures += len(pictures)
    count.tokens += tokens
