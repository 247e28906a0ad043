"""What the tests of importers share: images as bytes, tar files, and an import with its records read back."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from llada_uni.data.check import check_records
from llada_uni.data.importers.run import Imported, ImportOptions, import_data
from llada_uni.data.importers.source import DatasetSource
from llada_uni.data.records import BadRecords, Conversation
from llada_uni.data.sources import conversations, open_source


def picture(color: str = "red", form: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, form)
    return out.getvalue()


def put(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def tar_of(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def imported(kind: str, source: Path | str, out: Path, **options) -> tuple[Imported, list[Conversation]]:
    """The result and the records, which `data check` finds good and the dataset read in place gives as well. Without splits."""
    given = ImportOptions(**options)
    result = import_data(kind, str(source), out, given)
    report = check_records(open_source(out))
    assert not report.bad
    found = list(conversations(open_source(out), BadRecords()))
    assert report.records == len(found)
    if given.limit is None:
        in_place = DatasetSource("spelling", kind, str(source), given.read, given.wordings, given.seed)
        again = list(conversations(in_place, BadRecords(given.on_bad)))
        assert [(r.id, *told(r)) for r in again] == [(r.id, *told(r)) for r in found]
        assert pixels(again) == pixels(found)
    return result, found


def told(record: Conversation) -> tuple[object, ...]:
    """Everything a record says, its images counted."""
    turns = [(one.role, [part if isinstance(part, str) else "image" for part in one.parts]) for one in record.messages]
    return record.task, turns, record.learn_all


def pixels(records: Sequence[Conversation]) -> list[bytes]:
    return [picture.open().tobytes() for record in records for picture in record.pictures()]


def said(record: Conversation) -> tuple[str, str, str]:
    """(task, first text of the user, text of the answer)."""
    return record.task, record.messages[0].text(), record.messages[-1].text()


def color_of(record: Conversation) -> tuple[int, int, int]:
    return next(record.pictures()).open().getpixel((0, 0))


def tasks(records: Sequence[Conversation]) -> Counter[str]:
    return Counter(record.task for record in records)
