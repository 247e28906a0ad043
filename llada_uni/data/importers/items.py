"""What every importer yields: one thing found in a dataset, an image with what is said about it, or a whole conversation.

    for found in read_folder(Path("birds"), ReadOptions()): ...

An importer is a generator of `Item`s and `BadItem`s in an order that never changes, so that an interrupted import can go on.
It keeps nothing: an item's image is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from llada_uni.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif")
"""Names of image files; what is in them is found out when they are opened."""


@dataclass(frozen=True)
class SourceImage:
    """An image where the dataset has it. suffix: ".jpg"; read: its bytes, UserError when they are not there."""

    suffix: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Item:
    """key: its name, once in the dataset; where: file and line, for messages; images: one, or those of a conversation.

    fields: what templates may name, "class" -> "cat"; a tuple holds several values (five captions), one of which is used at a
    time. messages: a finished conversation (roles and contents of docs/data.md, images by their number "0", "1") with its task;
    no templates are used then.
    """

    key: str
    where: str
    images: tuple[SourceImage, ...] = ()
    fields: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    messages: tuple[Mapping[str, Any], ...] | None = None
    task: str = ""


@dataclass(frozen=True)
class BadItem:
    """Something in the dataset that cannot be used, and why."""

    where: str
    reason: str


Found = Iterator[Item | BadItem]


@dataclass(frozen=True)
class ReadOptions:
    """What an importer is told about the dataset.

    source_split: the dataset's own part to read ("train"; "" takes all). columns: our field -> the dataset's column.
    images: the folder that image paths are relative to ("": where the file with the paths is). delimiter: of a csv ("": by its
    name). name: configuration of a Hugging Face dataset. again: images may be read again later, in any order, and none is held
    until then (of a parquet file the datasets library keeps a copy on disk for that).
    """

    source_split: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    images: str = ""
    delimiter: str = ""
    name: str = ""
    again: bool = False


def inside(folder: Path, name: str) -> Path:
    """folder / name. UserError when `name` would lead out of the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name or PureWindowsPath(name).drive:
        raise UserError(f"the path {name!r} leads out of {folder}; allowed: a path below it")
    return folder / path


def file_image(folder: Path, name: str) -> SourceImage:
    """The image file `name` below `folder`. UserError when the name leads out of it or there is no such file."""
    path = inside(folder, name)
    if not path.is_file():
        raise UserError(f"there is no image {path}")
    return SourceImage(path.suffix.lower(), path.read_bytes)


def texts_of(value: Any) -> tuple[str, ...]:
    """The texts in a value of a dataset: a text, a number, or a list of such; none for None and for empty ones."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(" ".join(str(one).split()) for one in values if one is not None and str(one).strip())
