"""Imports a dataset: reads it by its kind, makes records by templates, writes them in splits, and goes on where it stopped.

import_data("folder", "cifar10", Path("records"), ImportOptions(splits={"train": 0.96, "held": 0.04}))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from llada_uni.data.importers.items import BadItem, Found, Item, ReadOptions
from llada_uni.data.importers.kinds import KINDS
from llada_uni.data.importers.splits import split_of
from llada_uni.data.importers.wordings import Wordings
from llada_uni.data.importers.writer import SHARD, RecordWriter
from llada_uni.data.records import BadRecords
from llada_uni.errors import UserError
from llada_uni.files.weights import read_json, write_json

PLAN = "import.json"
_KEPT = 1000  # lines about bad items that the plan keeps


@dataclass(frozen=True)
class ImportOptions:
    """read: what the reader is told; wordings: the templates; splits: name -> share, {} for none; seed: of both;
    form: jsonl or webdataset; on_bad: stop or skip; limit: items to read at most.
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    wordings: Wordings = field(default_factory=Wordings.built_in)
    splits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    form: str = "jsonl"
    on_bad: str = "stop"
    limit: int | None = None


@dataclass(frozen=True)
class Imported:
    """items: read; records: made now, by split ("" without splits); bad: a line for every item that could not be used."""

    items: int
    records: dict[str, int]
    bad: list[str]


def import_data(
    kind: str,
    source: str,
    out: Path,
    options: ImportOptions | None = None,
    on_item: Callable[[int], None] | None = None,
) -> Imported:
    """Writes the records of a dataset to `out`, or to a folder of it for each split. on_item(items so far).

    The same call goes on where an interrupted one stopped. UserError for an unknown kind, a dataset that is not of it, the
    first bad item (with on_bad "stop"), a folder that holds something else, and when nothing could be used.
    """
    options = options or ImportOptions()
    if kind not in KINDS:
        raise UserError(f"unknown kind of dataset {kind!r}; allowed: {', '.join(KINDS)}")
    bad = BadRecords(options.on_bad)
    names = list(options.splits) or [""]
    writers = {name: RecordWriter(out / name, options.form, options.wordings, options.seed) for name in names}
    done = _claim(out, kind, source, options)
    if done is not None:
        return done
    items = 0
    try:
        for found in read_items(kind, source, options.read):
            if options.limit is not None and items == options.limit:
                break
            items += 1
            _take(found, writers, options, bad)
            if on_item is not None:
                on_item(items)
        for writer in writers.values():
            writer.flush()
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror or error})") from None
    if items == len(bad.found):
        first = f": {bad.found[0]}" if bad.found else ""
        raise UserError(f"{source} gave no record that can be used{first}")
    records = {name: writer.records for name, writer in writers.items()}
    write_json(out / PLAN, _plan(kind, source, options) | {"items": items, "bad": len(bad.found), "skipped": bad.found[:_KEPT]})
    return Imported(items, records, bad.found)


def read_items(kind: str, source: str, options: ReadOptions) -> Found:
    """What a dataset of this kind (a key of KINDS) holds, in order. UserError when there is no such dataset."""
    module, _, name = KINDS[kind][0].partition(":")
    given: Any = source if kind == "hf" else Path(source).expanduser()
    return getattr(import_module(module), name)(given, options)


def _take(found: Item | BadItem, writers: Mapping[str, RecordWriter], options: ImportOptions, bad: BadRecords) -> None:
    if isinstance(found, BadItem):
        bad.add(found.where, found.reason)
        return
    try:
        writers[split_of(found.key, options.splits, options.seed)].add(found)
    except UserError as error:
        bad.add(found.where, error)


def _plan(kind: str, source: str, options: ImportOptions) -> dict[str, Any]:
    wordings = {t: [[w.ask, w.answer] for w in found] for t, found in options.wordings.by_task.items()}
    return {
        "kind": kind,
        "source": source,
        "source_split": options.read.source_split,
        "columns": dict(options.read.columns),
        "images": options.read.images,
        "templates": wordings,
        "each": dict(options.wordings.each),
        "splits": dict(options.splits),
        "seed": options.seed,
        "format": options.form,
        "shard": SHARD,
        "limit": options.limit,
    }


def _claim(out: Path, kind: str, source: str, options: ImportOptions) -> Imported | None:
    """Notes in `out` what it is made from; gives a finished import's result. UserError for a folder of something else."""
    plan, path = _plan(kind, source, options), out / PLAN
    if path.is_file():
        before = read_json(path)
        changed = [name for name in plan if before.get(name) != plan[name]]
        if changed:
            raise UserError(f"{out} holds an import with other settings ({', '.join(changed)}): use an empty folder")
        if "items" in before:
            return Imported(before["items"], dict.fromkeys(options.splits or ("",), 0), before["skipped"])
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no import: use an empty folder")
    try:
        write_json(path, plan)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror or error})") from None
    return None
