"""The text tokenizer of a small model, trained on the texts of its records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llada_uni import plugins
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import RecordSource, conversations
from llada_uni.errors import UserError
from llada_uni.text.tokenizer import TextTokenizer, train_tokenizer


def tokenizer_of_records(
    source: RecordSource, vocab_size: int, keep: Iterable[str] = (), bad: BadRecords | None = None
) -> TextTokenizer:
    """A byte-level BPE of `vocab_size` ids on the texts of all records; `keep`: words that become tokens in any case.

    Any other text still has an encoding. UserError when `vocab_size` is too small.
    """
    texts = (text for conversation in conversations(source, bad or BadRecords()) for text in conversation.texts())
    return train_tokenizer(texts, vocab_size, list(keep))


def words_to_keep(name: str) -> list[str]:
    """The word list of a plug-in by its name, or of a UTF-8 file with a word on each line. UserError when there is neither."""
    if name in plugins.table("words"):
        return plugins.load("words", name)()
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(plugins.table("words"))
        raise UserError(f"cannot read the words of {name} ({error}); give a file, or one of: {known}") from None
    return [word.strip() for word in lines if word.strip()]
