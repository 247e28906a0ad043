"""Which images a source of records has and which records speak of each: numbers only, so that millions fit into memory.

Records, read once -> for each image its name's checksum and the places of its records (file, offset) ->
`PictureIndex`, a sequence whose items are read from the files when they are asked for; what was asked for lately stays.
A source that makes its records itself (a plug-in) has no such places: its records are held.
"""

from __future__ import annotations

import copy
import hashlib
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, overload

import numpy as np

from llada_uni.data import records
from llada_uni.data.records import BadRecords, Conversation
from llada_uni.data.sources import Chunk, FileSource, RecordSource
from llada_uni.errors import UserError

_KEPT = 65536  # images whose words stay in memory
_CAPTION, _QUESTIONS = 1, 2
NEEDS = {None: 0, "caption": _CAPTION, "questions": _QUESTIONS}


@dataclass
class Said:
    """What all records together say about one picture."""

    captions: list[str] = field(default_factory=list)
    questions: list[tuple[str, str]] = field(default_factory=list)

    def kinds(self) -> int:
        """The bits of what there is."""
        return (_CAPTION if self.captions else 0) | (_QUESTIONS if self.questions else 0)


class Entry(NamedTuple):
    """A picture and what is said about it."""

    picture: records.Picture
    said: Said


def listen(conversation: Conversation) -> dict[records.Picture, Said]:
    """What a record says about its pictures: a caption, or questions about the only picture it shows."""
    shown = list(conversation.pictures())
    said = {picture: Said() for picture in shown}
    if len(shown) != 1:
        return said
    about = said[shown[0]]
    asked, answers = conversation.messages[::2], conversation.messages[1::2]
    if conversation.task == "t2i":
        about.captions.append(asked[-1].text())
    elif conversation.task == "caption":
        about.captions.append(answers[-1].text())
    elif conversation.task in ("understand", "dialogue"):
        about.questions += [(q.text(), a.text()) for q, a in zip(asked, answers, strict=True) if q.text() and a.text()]
    return said


class PictureIndex(Sequence[Entry]):
    """The pictures of a source, in an order that depends on their names alone. Reading one again costs its records' lines.

    need: a key of NEEDS; pictures without it are left out. bad: what is done about records that cannot be used.
    """

    def __init__(self, source: RecordSource, need: str | None, bad: BadRecords) -> None:
        self.source, self.bad = source, bad
        self._files: list[str] = []
        self._held: list[Conversation] = []
        columns = {name: array(kind) for name, kind in (("key", "Q"), ("name", "I"), ("file", "i"), ("kinds", "B"))}
        columns |= {name: array("q") for name in ("offset", "first")}
        for place, conversation in self._read():
            for picture, said in listen(conversation).items():
                values = (_key(picture), zlib.crc32(picture.name.encode()), self._file(place), said.kinds())
                for name, value in zip(("key", "name", "file", "kinds"), values, strict=True):
                    columns[name].append(value)
                columns["offset"].append(place.offset)
                columns["first"].append(place.first)
        self._mentions = {name: np.asarray(column) for name, column in columns.items()}
        self._order(NEEDS[need])
        self._entry = lru_cache(_KEPT)(self._read_entry)

    def _read(self) -> Iterator[tuple[Chunk, Conversation]]:
        for chunk in self.source.chunks():
            if isinstance(self.source, FileSource):
                yield from self.source.placed(chunk, self.bad)
            else:
                for conversation in self.source.read(chunk, self.bad):
                    self._held.append(conversation)
                    yield Chunk("", len(self._held) - 1, 0, 1), conversation

    def _file(self, place: Chunk) -> int:
        if not self._files or self._files[-1] != place.file:
            self._files.append(place.file)
        return len(self._files) - 1

    def _order(self, need: int) -> None:
        """Puts the pictures in order, by the checksum of the name, then by the name, then as they came."""
        found = self._mentions
        _, first, picture = np.unique(found["key"], return_index=True, return_inverse=True)
        kinds = np.zeros(len(first), np.uint8)
        np.bitwise_or.at(kinds, picture, found["kinds"])
        self._by_picture = np.argsort(picture, kind="stable")  # the mentions of a picture, in the order of the records
        self._starts = np.searchsorted(picture[self._by_picture], np.arange(len(first) + 1))
        names = found["name"][first]
        order = np.lexsort((first, names))
        self._pictures = order[(kinds[order] & need) == need]
        sums = names[self._pictures]
        borders = np.flatnonzero(np.diff(sums, prepend=-1, append=-1))
        for run in np.flatnonzero(np.diff(borders) > 1):  # equal checksums of different pictures: hardly any
            tied = slice(borders[run], borders[run + 1])
            self._pictures[tied] = sorted(self._pictures[tied].tolist(), key=lambda one: self._read_entry(one).picture.name)

    def part(self, start: int, stop: int) -> PictureIndex:
        """The pictures start to stop - 1 alone."""
        found = copy.copy(self)
        found._pictures = self._pictures[start:stop]
        return found

    def __len__(self) -> int:
        return len(self._pictures)

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Entry]: ...
    def __getitem__(self, number: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        return self._entry(int(self._pictures[number]))

    def _read_entry(self, picture: int) -> Entry:
        """Reads the places of one picture again."""
        mentions = self._by_picture[self._starts[picture] : self._starts[picture + 1]]
        key, whole, shown = self._mentions["key"][mentions[0]], Said(), None
        places = dict.fromkeys(self._place(int(mention)) for mention in mentions)  # one place may hold several records
        for place in places:
            for conversation in self._again(place):
                for one, said in listen(conversation).items():
                    if _key(one) == key:
                        shown = shown or one
                        whole.captions += said.captions
                        whole.questions += said.questions
        if shown is None:
            raise UserError(f"{self.source.name} has changed since it was opened: a record is no longer where it was")
        return Entry(shown, whole)

    def _place(self, mention: int) -> Chunk:
        file, offset, first = (int(self._mentions[name][mention]) for name in ("file", "offset", "first"))
        return Chunk(self._files[file], offset, first, 1)

    def _again(self, place: Chunk) -> Iterator[Conversation]:
        if isinstance(self.source, FileSource):
            yield from self.source.read(place, BadRecords("skip"))  # bad ones were named when the index was made
        else:
            yield self._held[place.offset]


def _key(picture: records.Picture) -> int:
    """64 bits that tell a picture from all others of a source."""
    return int.from_bytes(hashlib.blake2b(repr(picture).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
