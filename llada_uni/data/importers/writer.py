"""Writes imported items as conversation records: JSONL with images beside it, or tar shards in WebDataset's layout.

A shard of `SHARD` items is complete under its final name or not there at all, and what is in it depends on the dataset and the
settings alone. So an import that was stopped skips the shards that are there.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llada_uni.data.importers.item_records import ItemRecords
from llada_uni.data.importers.items import Item
from llada_uni.data.importers.wordings import Wordings
from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file

FORMATS = ("jsonl", "webdataset")
SHARD = 1000


@dataclass
class Shard:
    """A shard in the making: items that have come, usable or not, and what is to be written of the usable ones."""

    number: int
    seen: int = 0
    entries: list[tuple[str, list[dict[str, Any]], list[tuple[str, bytes]]]] = field(default_factory=list)


class RecordWriter:
    """Fills one folder. An item's image bytes are kept until its shard is written; nothing else is."""

    def __init__(self, folder: Path, form: str, wordings: Wordings, seed: int = 0) -> None:
        if form not in FORMATS:
            raise UserError(f"unknown format {form!r}; allowed: {', '.join(FORMATS)}")
        self.folder, self.form = folder, form
        self._maker = ItemRecords(wordings, seed)
        self.records = 0
        self._shard = Shard(0)

    def add(self, item: Item) -> None:
        """Takes an item. UserError when it cannot be used: no image, no text for any template; it still counts as seen."""
        try:
            if not self._there():
                self._shard.entries.append(self._entry(item))
        finally:
            self.pass_over()

    def pass_over(self) -> None:
        """Counts an item that came and could not be used, so that shards stay the same whatever is skipped."""
        self._shard.seen += 1
        if self._shard.seen == SHARD:
            self.flush()

    def flush(self) -> None:
        """Writes the shard, also one that is not full; nothing for an empty one."""
        shard, self._shard = self._shard, Shard(self._shard.number + 1)
        if not shard.entries or self._path(shard.number).is_file():
            return
        (self._write_jsonl if self.form == "jsonl" else self._write_tar)(shard)
        self.records += sum(len(records) for _, records, _ in shard.entries)

    def _path(self, number: int) -> Path:
        return self.folder / f"records-{number:05d}.{'jsonl' if self.form == 'jsonl' else 'tar'}"

    def _there(self) -> bool:
        return self._path(self._shard.number).is_file()

    def _entry(self, item: Item) -> tuple[str, list[dict[str, Any]], list[tuple[str, bytes]]]:
        """The item's key, its records, whose images are called "0", "1", ..., and the images themselves."""
        images = [(image.suffix, image.read()) for image in item.images]
        return item.key, self._maker.of(item, lambda: images[0][1]), images

    def _write_jsonl(self, shard: Shard) -> None:
        folder = Path("images") / f"{shard.number:05d}"
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        lines = []
        for place, (_, records, images) in enumerate(shard.entries):
            names = [(folder / f"{place:04d}-{number}{suffix}").as_posix() for number, (suffix, _) in enumerate(images)]
            for name, (_, data) in zip(names, images, strict=True):
                (self.folder / name).write_bytes(data)
            lines += [json.dumps(_named(record, names), ensure_ascii=False) for record in records]
        with atomic_file(self._path(shard.number)) as temporary:  # last: a shard that is there has all its images
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _write_tar(self, shard: Shard) -> None:
        with atomic_file(self._path(shard.number)) as temporary, tarfile.open(temporary, "w") as tar:
            for place, (_, records, images) in enumerate(shard.entries):
                names = [f"{number}{suffix}" for number, (suffix, _) in enumerate(images)]
                named = [_named(record, names) for record in records]
                text = json.dumps(named if len(named) > 1 else named[0], ensure_ascii=False)
                key = f"{shard.number:05d}-{place:04d}"
                _add(tar, f"{key}.json", text.encode("utf-8"))
                for name, (_, data) in zip(names, images, strict=True):
                    _add(tar, f"{key}.{name}", data)


def _named(record: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The record with its images called by the names of their files."""

    def part(value: dict[str, str]) -> dict[str, str]:
        return {"type": "image", "image": names[int(value["image"])]} if value["type"] == "image" else value

    def content(value: Any) -> Any:
        return value if isinstance(value, str) else [part(one) for one in value]

    return {**record, "messages": [{**m, "content": content(m["content"])} for m in record["messages"]]}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
