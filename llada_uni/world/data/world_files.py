"""Writes the small world as ordinary record files: JSONL with pictures beside it, or tar shards in WebDataset's layout.

Shards are made one by one, each in one step under its final name, and depend on the settings alone: a killed run goes on
where it stopped, and the same command makes the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llada_uni.data.records import Conversation, Picture
from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file, read_json, write_json
from llada_uni.world.data.world_records import WorldRecords

FORMATS = ("jsonl", "webdataset")
SHARD_RECORDS = 1000
_SETTINGS = "world.json"


def write_world(
    world: WorldRecords, out: Path, form: str = "jsonl", on_shard: Callable[[int, int], None] | None = None
) -> None:
    """Writes all shards that are not there yet. form: one of FORMATS; on_shard(done, total) after each.

    UserError for another format, or when `out` holds records of other settings.
    """
    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}; allowed: {', '.join(FORMATS)}")
    settings = {"records": world.name, "format": form}
    try:
        if (out / _SETTINGS).is_file() and read_json(out / _SETTINGS) != settings:
            raise UserError(f"{out} holds records of other settings ({out / _SETTINGS}): use an empty folder")
        write_json(out / _SETTINGS, settings)
        total = -(-world.count // SHARD_RECORDS)
        for shard in range(total):
            start = shard * SHARD_RECORDS
            records = world.conversations(start, min(SHARD_RECORDS, world.count - start))
            (_write_jsonl if form == "jsonl" else _write_tar)(out, shard, records)
            if on_shard is not None:
                on_shard(shard + 1, total)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror or error})") from None


def _write_jsonl(out: Path, shard: int, records: Iterator[Conversation]) -> None:
    path = out / f"records-{shard:05d}.jsonl"
    if path.is_file():
        return
    folder = f"pictures/{shard:05d}"
    (out / folder).mkdir(parents=True, exist_ok=True)
    names: dict[Picture, str] = {}
    lines = []
    for record in records:
        for picture in record.pictures():
            if picture not in names:
                names[picture] = f"{folder}/{len(names):05d}.png"
                (out / names[picture]).write_bytes(_png(picture))
        lines.append(json.dumps(_record(record, names)))
    with atomic_file(path) as temporary:  # last: a shard that is there has all its pictures
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_tar(out: Path, shard: int, records: Iterator[Conversation]) -> None:
    path = out / f"records-{shard:05d}.tar"
    if path.is_file():
        return
    with atomic_file(path) as temporary, tarfile.open(temporary, "w") as tar:
        for number, record in enumerate(records):
            names = {picture: f"{i}.png" for i, picture in enumerate(dict.fromkeys(record.pictures()))}
            _add(tar, f"{shard:05d}-{number:05d}.json", json.dumps(_record(record, names)).encode())
            for picture, name in names.items():
                _add(tar, f"{shard:05d}-{number:05d}.{name}", _png(picture))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _png(picture: Picture) -> bytes:
    out = io.BytesIO()
    picture.open().save(out, "PNG")
    return out.getvalue()


def _record(record: Conversation, names: dict[Picture, str]) -> dict[str, Any]:
    """The JSON object of a record; names: what its pictures are called."""

    def part(value: str | Picture) -> dict[str, str]:
        return {"type": "text", "text": value} if isinstance(value, str) else {"type": "image", "image": names[value]}

    messages = [{"role": m.role, "content": [part(value) for value in m.parts]} for m in record.messages]
    learn = {"learn": "all"} if record.learn_all else {}
    mix = {"mix": record.mix} if record.mix != record.task else {}
    return {"id": record.id, "task": record.task, **learn, **mix, "messages": messages}
