"""Class folders: SRC/cat/1.jpg, SRC/train/cat/1.jpg, and the same inside tar files.

The folder that an image lies in is its class, underscores read as spaces. Folders above it are passed over; with a source split
only images below a folder of that name are read.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from llada_uni.data.importers.items import IMAGE_SUFFIXES, BadItem, Found, Item, ReadOptions, SourceImage
from llada_uni.data.records import PictureSlice
from llada_uni.data.sources import is_clutter
from llada_uni.errors import UserError


def read_folder(source: Path, options: ReadOptions) -> Found:
    """Items of a folder of class folders, of a tar file, or of a folder of tar files, in the order of their names.

    Inside a tar file the order is the file's own. Every item has the field `class`.
    """
    if source.is_dir():
        files: Iterator[Path] = _walk(source)
    elif source.suffix == ".tar" and source.is_file():
        files = iter((source,))
    else:
        raise UserError(f"there are no class folders at {source}: expected a folder, or a tar file")
    for path in files:
        if path.suffix == ".tar":
            yield from _in_tar(path, options)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(source).as_posix()
            image = SourceImage(path.suffix.lower(), path.read_bytes)
            yield from _item(name, str(path), image, options)


def _walk(folder: Path) -> Iterator[Path]:
    """All files below, by name; one folder's names are held at a time. Links to folders are not followed."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if is_clutter(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def _in_tar(path: Path, options: ReadOptions) -> Found:
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile remembers all it has seen
                if not member.isreg() or is_clutter(member.name):
                    continue
                suffix = PurePosixPath(member.name).suffix.lower()
                if suffix in IMAGE_SUFFIXES:
                    read = PictureSlice(path, member.name, member.offset_data, member.size).read
                    yield from _item(member.name, f"{path}[{member.name}]", SourceImage(suffix, read), options)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} is no tar file (uncompressed) or is damaged ({error})") from None


def _item(name: str, where: str, image: SourceImage, options: ReadOptions) -> Found:
    folders = PurePosixPath(name).parts[:-1]
    if options.source_split:
        if options.source_split not in folders:
            return
        folders = folders[folders.index(options.source_split) + 1 :]
    if not folders or folders[-1] in (".", ".."):
        yield BadItem(where, "lies in no class folder; expected CLASS/NAME")
        return
    yield Item(PurePosixPath(name).with_suffix("").as_posix(), where, (image,), {"class": folders[-1].replace("_", " ")})
