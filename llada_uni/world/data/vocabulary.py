"""The text tokenizer of a small model, trained on the words of its records."""

from __future__ import annotations

from collections.abc import Iterable

from llada_uni.data.records import BadRecords
from llada_uni.data.sources import RecordSource, conversations
from llada_uni.text.tokenizer import TextTokenizer, train_tokenizer
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, ROWS, STYLES, THINGS
from llada_uni.world.questions import DECIDING
from llada_uni.world.wordings import NUMBERS


def world_words() -> list[str]:
    """The names of the small world's things, styles, colours, numbers and places, and what answers are made of: each should be
    one token, so that drafts of an answer differ by words alone, never by its length.

    A place of two words is one too: a model of this size did not learn to join "top" to its "left" (docs/log.md).
    """
    return [*CONCEPTS, *(CONCEPTS[name].plural for name in THINGS), *STYLES, *COLORS, *NUMBERS, *POSITIONS, *ROWS, *DECIDING]


def tokenizer_of_records(
    source: RecordSource, vocab_size: int, keep: Iterable[str] = (), bad: BadRecords | None = None
) -> TextTokenizer:
    """A byte-level BPE (text.py) of `vocab_size` ids on the texts of all records; `keep`: words that become tokens in any case.

    Any other text still has an encoding. UserError when `vocab_size` is too small.
    """
    texts = (text for conversation in conversations(source, bad or BadRecords()) for text in conversation.texts())
    return train_tokenizer(texts, vocab_size, list(keep))
