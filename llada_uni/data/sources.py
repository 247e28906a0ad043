"""Where conversation records come from: JSONL files, tar shards (WebDataset layout), folders of either, or a plug-in.

A source is cut into chunks of about equally many records, each of which can be read on its own, in
any process and any order: `chunks(size)` finds the borders without parsing, `read(chunk, bad)` gives the conversations of
one. Bad records go to `BadRecords` with file and line (tar: with the sample's key); none is lost without a word.

A tar sample is `KEY.json` and its pictures `KEY.NAME`, one after another; a part of type "image" gives NAME (`0.png`).
The JSON may be a list of records about these pictures.
Shards are plain .tar, so that a picture can be read from its place without reading what stands before it.
Files that macOS leaves beside the real ones are passed over.
A name such as `world:20000:5` opens the source "world" of a plug-in (plugins.py); `folder:birds/` reads a dataset in its own
format (importers/source.py).
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import BinaryIO, Protocol

from llada_uni import plugins
from llada_uni.data.records import BadRecords, Conversation, Picture, PictureFile, PictureSlice, parse_record
from llada_uni.errors import UserError

CHUNK = 2000


@dataclass(frozen=True)
class Chunk:
    """`count` records of `file` from byte `offset` on, the first being number `first` (from 1; a line, for JSONL)."""

    file: str
    offset: int
    first: int
    count: int


def is_clutter(name: str) -> bool:
    """Whether a file or tar member is what macOS leaves beside the real ones: `._x`, `.DS_Store`, `__MACOSX/`."""
    *folders, base = name.split("/")
    return base.startswith("._") or base == ".DS_Store" or "__MACOSX" in folders


class RecordSource(Protocol):
    """Something that holds conversations. `name` identifies it (and its present content) for a later run."""

    name: str

    def chunks(self, size: int = CHUNK) -> list[Chunk]: ...

    def read(self, chunk: Chunk, bad: BadRecords) -> Iterator[Conversation]: ...


def open_source(records: str | Path, side: int = 128) -> RecordSource:
    """A file or folder of records, or `NAME:...` for the source NAME of a plug-in, `folder:birds/` for one.

    side: of its images in pixels, where it renders them.

    UserError when there is nothing of the kind.
    """
    name, colon, _ = str(records).partition(":")
    if colon and name in plugins.table("sources"):
        return plugins.load("sources", name)(str(records), side)
    return FileSource(Path(records).expanduser())


def conversations(source: RecordSource, bad: BadRecords) -> Iterator[Conversation]:
    """All conversations of a source, in order."""
    for chunk in source.chunks():
        yield from source.read(chunk, bad)


class FileSource:
    """One .jsonl or .tar file, or every such file of a folder, by name."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            self.files = sorted(
                file for file in path.iterdir() if file.suffix in _FORMATS and not is_clutter(file.name) and file.is_file()
            )
        else:
            self.files = [path]
        if not self.files or not all(file.is_file() for file in self.files):
            raise UserError(
                f"there are no records at {path}: expected a .jsonl or .tar file, a folder "
                f"with such files, or a dataset in its own format, as in folder:PATH")
        for file in self.files:
            if file.suffix not in _FORMATS:
                raise UserError(f"{file} is no record file; allowed: {', '.join(_FORMATS)}")
        self.name = " ".join(f"{file.name}:{file.stat().st_size}" for file in self.files)

    def chunks(self, size: int = CHUNK) -> list[Chunk]:
        return [chunk for file in self.files for chunk in _cut(file, size)]

    def read(self, chunk: Chunk, bad: BadRecords) -> Iterator[Conversation]:
        for _, conversation in self.placed(chunk, bad):
            yield conversation

    def placed(self, chunk: Chunk, bad: BadRecords) -> Iterator[tuple[Chunk, Conversation]]:
        """The conversations of a chunk, each with the place of its line or sample alone, by which it can be read again."""
        file = Path(chunk.file)
        for at, first, where, read, picture in _FORMATS[file.suffix].samples(file, chunk):
            try:
                data = _decoded(read())
            except UserError as error:
                bad.add(where, error)
                continue
            several = data if isinstance(data, list) and data else None
            for number, one in enumerate([data] if several is None else several, 1):
                here = where if several is None else f"{where}#{number}"
                try:
                    found = parse_record(one, here, picture)
                except UserError as error:
                    bad.add(here, error)
                else:
                    yield Chunk(chunk.file, at, first, 1), found


def _cut(file: Path, size: int) -> Iterator[Chunk]:
    """The chunks of one file; no more than the places of one are held at a time."""
    starts = enumerate(_FORMATS[file.suffix].starts(file), 1)
    while part := list(islice(starts, size)):
        first, offset = part[0]
        yield Chunk(str(file), offset, first, len(part))


def _decoded(raw: bytes) -> object:
    try:
        return json.loads(raw.decode("utf-8-sig"))  # Windows programs put a byte order mark at the start
    except UnicodeDecodeError:
        raise UserError("is not UTF-8") from None
    except ValueError as error:
        where = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""  # a line's number says the caller
        raise UserError(f"is not JSON ({getattr(error, 'msg', error)}{where})") from None


# ---
# JSONL: one record a line, pictures in files beside it; empty lines are allowed

Sample = tuple[int, int, str, Callable[[], bytes], Callable[[str], Picture]]
"""Its offset and number, where it is in words, what reads its JSON (or raises UserError), and how the pictures it names are
found."""


def _line_starts(path: Path) -> Iterator[int]:
    with open(path, "rb") as file:
        at = 0
        for line in file:
            yield at
            at += len(line)


def _lines(path: Path, chunk: Chunk) -> Iterator[Sample]:
    picture = partial(_beside, path.parent)
    with open(path, "rb") as file:
        file.seek(chunk.offset)
        for number in range(chunk.first, chunk.first + chunk.count):
            at, line = file.tell(), file.readline()
            if line.strip():
                yield at, number, f"{path}:{number}", partial(bytes, line), picture


def _beside(folder: Path, name: str) -> Picture:
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"the image {name!r} is outside the folder of the records; allowed: a path below {folder}")
    return PictureFile(folder / name, name)


# ---
# Tar shards in the layout of WebDataset


def key_of(member: tarfile.TarInfo) -> tuple[str, str]:
    """("a/b", "0.png") of a/b.0.png: the key ends at the first dot of the file's name."""
    folder, _, base = member.name.rpartition("/")
    key, _, suffix = base.partition(".")
    return (f"{folder}/{key}" if folder else key), suffix


def _groups(file: BinaryIO, path: Path) -> Iterator[list[tarfile.TarInfo]]:
    """The members of one sample after another, from where `file` stands."""
    group: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile remembers all it has seen; a shard may hold millions
                if not member.isreg() or is_clutter(member.name):
                    continue
                if group and key_of(member)[0] != key_of(group[0])[0]:
                    yield group
                    group = []
                group.append(member)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} is no tar file or is damaged ({error})") from None
    if group:
        yield group


def tar_samples(path: Path) -> Iterator[list[tarfile.TarInfo]]:
    """The members of one sample of a tar file after another: those that stand together and share a key (`key_of`)."""
    with open(path, "rb") as file:
        yield from _groups(file, path)


def _group_starts(path: Path) -> Iterator[int]:
    with open(path, "rb") as file:
        for group in _groups(file, path):
            yield group[0].offset


def _groups_of(path: Path, chunk: Chunk) -> Iterator[Sample]:
    with open(path, "rb") as file:
        file.seek(chunk.offset)
        for number, group in zip(range(chunk.first, chunk.first + chunk.count), _groups(file, path), strict=False):
            members = {key_of(member)[1]: PictureSlice(path, member.name, member.offset_data, member.size) for member in group}
            where = f"{path}[{key_of(group[0])[0]}]"
            yield group[0].offset, number, where, partial(_json_of, group, members), partial(_within, members)


def _json_of(group: list[tarfile.TarInfo], members: dict[str, PictureSlice]) -> bytes:
    """The sample's .json; UserError when it has none, or when samples that share a key stand one after another."""
    key = key_of(group[0])[0]
    for name, count in Counter(key_of(member)[1] for member in group).items():
        if count > 1:
            raise UserError(f"the member {key}.{name} stands here {count} times; every sample needs a key of its own")
    if "json" not in members:
        raise UserError("there is no .json beside the other files of this sample")
    return members["json"].read()


def _within(members: dict[str, PictureSlice], name: str) -> Picture:
    if name not in members:
        raise UserError(f"there is no picture {name} in this sample; it has {', '.join(members)}")
    return members[name]


@dataclass(frozen=True)
class _Format:
    starts: Callable[[Path], Iterator[int]]
    samples: Callable[[Path, Chunk], Iterator[Sample]]


_FORMATS = {".jsonl": _Format(_line_starts, _lines), ".tar": _Format(_group_starts, _groups_of)}
