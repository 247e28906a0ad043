"""A dataset in its own format as a source of conversation records, without an import: `folder:birds/`, `hf:cifar10`.

    open_source("folder:birds/?templates=templates.yaml").read(chunk, bad)

KIND:PATH and, after a question mark, what `llada-uni data import` is told by options of the same names. The texts of all
items are in memory; images stay where they are and are read when they are drawn, so the stages that learn from pixels can begin
at once. A dataset of many millions of images, or one whose templates measure every image, is better imported once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from llada_uni.data.importers.item_records import ItemRecords
from llada_uni.data.importers.items import BadItem, Item, ReadOptions, SourceImage
from llada_uni.data.importers.run import read_items
from llada_uni.data.importers.wordings import Wordings
from llada_uni.data.records import BadRecords, Conversation, Picture, PictureBytes, parse_record
from llada_uni.data.sources import CHUNK, Chunk
from llada_uni.errors import UserError

_TEXTS = ("source_split", "images", "delimiter", "name")
_COLUMN = "column."
OPTIONS = (*_TEXTS, f"{_COLUMN}NAME", "templates", "languages", "seed")
"""What may stand after the question mark."""


@dataclass(frozen=True)
class ItemPicture(PictureBytes):
    """An image of an item, read from the dataset whenever it is opened. name: the item's key and the image's number."""

    name: str
    image: SourceImage = field(compare=False, repr=False)

    @property
    def where(self) -> str:
        return f"the image of {self.name}"

    def read(self) -> bytes:
        try:
            return self.image.read()
        except OSError as error:
            raise UserError(f"cannot read {self.where} ({error.strerror or error})") from None


class DatasetSource:
    """The records of a dataset (a RecordSource): those that an import with the same settings would write.

    spelling: how messages and plans call it. UserError when it is read and there is no such dataset.
    """

    def __init__(self, spelling: str, kind: str, path: str, read: ReadOptions, wordings: Wordings, seed: int = 0) -> None:
        self.spelling, self.kind, self.path = spelling, kind, path
        self._read = replace(read, again=True)
        self._maker = ItemRecords(wordings, seed)

    @cached_property
    def _items(self) -> list[Item | BadItem]:
        return list(read_items(self.kind, self.path, self._read))

    @property
    def name(self) -> str:
        """The spelling, and a checksum of what there is and of the templates."""
        digest = hashlib.sha256(repr(self._maker.wordings).encode())
        for item in self._items:
            digest.update(f"{item.key} {item.fields}\n".encode("utf-8", "surrogatepass") if isinstance(item, Item) else b"-\n")
        return f"{self.spelling} {len(self._items)}:{digest.hexdigest()[:16]}"

    def chunks(self, size: int = CHUNK) -> list[Chunk]:
        total = len(self._items)
        return [Chunk(self.spelling, start, start + 1, min(size, total - start)) for start in range(0, total, size)]

    def read(self, chunk: Chunk, bad: BadRecords) -> Iterator[Conversation]:
        """The conversations of `chunk.count` items from number `chunk.offset` (from 0) on."""
        for item in self._items[chunk.offset : chunk.offset + chunk.count]:
            if isinstance(item, BadItem):
                bad.add(item.where, item.reason)
                continue
            try:
                found = [self._conversation(item, record) for record in self._records(item)]
            except UserError as error:
                bad.add(item.where, error)
            else:
                yield from found

    def _records(self, item: Item) -> list[dict[str, Any]]:
        return self._maker.of(item, lambda: item.images[0].read())

    def _conversation(self, item: Item, record: dict[str, Any]) -> Conversation:
        def picture(number: str) -> Picture:
            return ItemPicture(f"{item.key}/{number}", item.images[int(number)])

        return parse_record(record, item.where, picture)


def open_dataset(spelling: str, side: int = 0) -> DatasetSource:
    """The source of KIND:PATH?NAME=VALUE&... (a plug-in's function, plugins.py); its images have the sides they have.

    UserError for what stands after the question mark, or when there is no path.
    """
    kind, _, rest = spelling.partition(":")
    path, mark, given = rest.rpartition("?")
    told = _options(given, spelling) if mark else {}
    path = path if mark else rest
    if not path:
        raise UserError(f"{spelling}: which dataset? Allowed: {kind}:PATH")
    columns = {name.removeprefix(_COLUMN): value for name, value in told.items() if name.startswith(_COLUMN)}
    texts: dict[str, Any] = {name: told.get(name, "") for name in _TEXTS}
    read = ReadOptions(columns=columns, **texts)
    languages = [language.strip() for language in told.get("languages", "en").split(",")]
    wordings = Wordings.from_file(told["templates"]) if "templates" in told else Wordings.built_in(languages)
    seed = told.get("seed", "0")
    if not seed.isdecimal():
        raise UserError(f"{spelling}: seed={seed}; allowed: a number from 0")
    return DatasetSource(spelling, kind, path, read, wordings, int(seed))


def _options(given: str, spelling: str) -> dict[str, str]:
    """{"source_split": "train"} of "source_split=train". UserError for names that are none of OPTIONS."""
    told = dict(parse_qsl(given, keep_blank_values=True))
    for name in told:
        if name not in OPTIONS and not name.startswith(_COLUMN):
            raise UserError(f"{spelling}: unknown option {name!r}; allowed: {'=..., '.join(OPTIONS)}=...")
    if {"templates", "languages"} <= told.keys():
        raise UserError(f"{spelling}: give templates or languages, not both")
    return told
