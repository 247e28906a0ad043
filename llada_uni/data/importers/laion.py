"""LAION's WebDataset tars: KEY.jpg, KEY.txt (the caption) and KEY.json (what else is known), one sample after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llada_uni.data.importers.items import IMAGE_SUFFIXES, BadItem, Found, Item, ReadOptions, SourceImage, texts_of
from llada_uni.data.records import PictureSlice
from llada_uni.data.sources import is_clutter, key_of, tar_samples
from llada_uni.errors import UserError


def read_laion(source: Path, options: ReadOptions) -> Found:
    """Items of a tar file or of all tar files of a folder, by name. Fields: `caption`, and every plain value of the .json.

    `options.columns` renames: {"caption": "alt"} takes the caption from the json's "alt". Samples without an image are bad.
    """
    files = sorted(p for p in source.glob("*.tar") if not is_clutter(p.name)) if source.is_dir() else [source]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"there are no WebDataset tars at {source}: expected a .tar, or a folder with such files")
    for path in files:
        for group in tar_samples(path):
            key = key_of(group[0])[0]
            where = f"{path}[{key}]"
            members = {key_of(m)[1].lower(): PictureSlice(path, m.name, m.offset_data, m.size) for m in group}
            if len(members) < len(group):
                yield BadItem(where, "two samples with one key stand here; every sample needs a key of its own")
                continue
            try:
                yield _item(f"{path.stem}/{key}", where, members, options)
            except UserError as error:
                yield BadItem(where, str(error))


def _item(key: str, where: str, members: dict[str, PictureSlice], options: ReadOptions) -> Item:
    images = [(suffix, member) for suffix, member in members.items() if f".{suffix}" in IMAGE_SUFFIXES]
    if len(images) != 1:
        raise UserError(f"a sample has one image; this one has {len(images)} ({', '.join(members)})")
    (suffix, image), fields = images[0], {}
    if "json" in members:
        fields.update(_plain(_json(members["json"].read())))
    if "txt" in members:
        try:
            fields["caption"] = texts_of(members["txt"].read().decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise UserError("the .txt is not UTF-8") from None
    for ours, theirs in options.columns.items():
        if theirs not in fields:
            raise UserError(f"there is no {theirs!r} in the .json; it has {', '.join(fields) or 'nothing'}")
        fields[ours] = fields[theirs]
    return Item(key, where, (SourceImage(f".{suffix}", image.read),), fields)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except ValueError as error:  # also of a wrong encoding
        raise UserError(f"the .json is not JSON ({' '.join(str(error).split())[:120]})") from None


def _plain(data: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, dict):
        raise UserError(f"the .json holds a {type(data).__name__}, not an object")
    return {name: texts_of(value) for name, value in data.items() if isinstance(value, str | int | float | list)}
