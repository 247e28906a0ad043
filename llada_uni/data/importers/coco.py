"""COCO captions: annotations/captions_SPLIT.json beside the folders of images.

The annotations are read as a stream and grouped by image in a temporary database on disk, so memory does not grow with them.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llada_uni.data.importers.items import BadItem, Found, Item, ReadOptions, file_image, inside, texts_of
from llada_uni.data.importers.json_stream import json_items
from llada_uni.errors import UserError


def read_coco(source: Path, options: ReadOptions) -> Found:
    """Items of one annotation file, or of all `captions_*.json` of a COCO folder, by image id; the field is `caption`.

    Images are looked for in `options.images`, else in the folder named after the split, `images/`, and the folder itself.
    """
    for path in _annotation_files(source, options):
        split = path.stem.removeprefix("captions_")
        root = path.parent.parent if path.parent.name == "annotations" else path.parent
        if options.images:
            folders = [Path(options.images)]
        else:
            folders = [folder for folder in (root / split, root / "images" / split, root / "images", root) if folder.is_dir()]
        with tempfile.TemporaryDirectory(prefix="coco-") as temporary:
            database = sqlite3.connect(Path(temporary) / "captions.sqlite")
            try:
                _fill(database, path)
                yield from _items(database, path, split, folders)
            finally:
                database.close()


def _annotation_files(source: Path, options: ReadOptions) -> list[Path]:
    if source.is_file():
        return [source]
    pattern = f"captions_{options.source_split or '*'}.json"
    found = sorted(p for folder in (source / "annotations", source) for p in folder.glob(pattern) if p.is_file())
    if not found:
        raise UserError(f"there are no COCO captions at {source}: expected a {pattern}, or annotations/{pattern}")
    return found


def _fill(database: sqlite3.Connection, path: Path) -> None:
    database.execute("PRAGMA journal_mode=OFF")
    database.execute("PRAGMA synchronous=OFF")
    database.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, file TEXT)")
    database.execute("CREATE TABLE captions (number INTEGER PRIMARY KEY, image INTEGER, caption TEXT)")
    database.executemany("INSERT OR REPLACE INTO images VALUES (?, ?)", _images(path))
    database.executemany("INSERT INTO captions (image, caption) VALUES (?, ?)", _captions(path))
    database.execute("CREATE INDEX by_image ON captions (image, number)")


def _images(path: Path) -> Iterator[tuple[int, str]]:
    for number, image in enumerate(json_items(path, "images.item"), 1):
        yield _whole(image, "id", path, f"image {number}"), _text(image, "file_name", path, f"image {number}")


def _captions(path: Path) -> Iterator[tuple[int, str]]:
    for number, one in enumerate(json_items(path, "annotations.item"), 1):
        where = f"annotation {number}"
        yield _whole(one, "image_id", path, where), " ".join(_text(one, "caption", path, where).split())


def _whole(entry: Any, name: str, path: Path, where: str) -> int:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{path}: {where} has no {name} that is a whole number")
    return value


def _text(entry: Any, name: str, path: Path, where: str) -> str:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise UserError(f"{path}: {where} has no {name} that is a text")
    return value


def _items(database: sqlite3.Connection, path: Path, split: str, folders: list[Path]) -> Found:
    rows = database.execute(
        "SELECT captions.image, images.file, caption FROM captions LEFT JOIN images ON images.id = captions.image "
        "ORDER BY captions.image, captions.number"
    )
    current: tuple[int, str | None] | None = None
    said: list[str] = []
    for image, file, caption in rows:
        if current is not None and current[0] != image:
            yield _item(path, split, folders, *current, said)
            said = []
        current = image, file
        said.append(caption)
    if current is not None:
        yield _item(path, split, folders, *current, said)


def _item(path: Path, split: str, folders: list[Path], number: int, file: str | None, said: list[str]) -> Item | BadItem:
    where = f"{path}[image {number}]"
    if file is None:
        return BadItem(where, f"captions name the image {number}, which the list of images lacks")
    try:
        folder = next((folder for folder in folders if inside(folder, file).is_file()), None)
        if folder is None:
            looked = ", ".join(map(str, folders)) or "no folder there is"
            return BadItem(where, f"there is no image {file}; looked in {looked} (name the folder with --images)")
        return Item(f"{split}/{number:012d}", where, (file_image(folder, file),), {"caption": texts_of(said)})
    except UserError as error:
        return BadItem(where, str(error))
