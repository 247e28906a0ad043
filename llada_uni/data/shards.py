"""Token shards: what extraction writes and training reads.

A folder holds `tokens-00000.safetensors`, ... , `manifest.json` and `tokenizer.json`. A shard holds, for N places in R
records one after another: ids int32 [N], kinds int8 [N] (kinds.py), ends int64 [R] (where each record stops), task int16 [R]
(index into the list of names in the shard's own header), text int32 [R, 2] (where the
text stands that guidance leaves out). Files are mapped, not read: a record costs its own bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llada_uni.data.kinds import CONTEXT
from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file, read_json, require, write_json

MANIFEST = "manifest.json"
_FIELDS = ("image_token_offset", "codebook_size", "tasks", "records", "text_tokenizer", "image_tokenizer", "shards")


NO_TEXT = (-1, -1)


@dataclass(frozen=True)
class Record:
    """One token record. ids: int32 [n]; kinds: int8 [n]; task: the name that mixing weights count it by.

    text: (first, after the last) position of the user's text that guidance leaves out; NO_TEXT where none is.
    """

    ids: np.ndarray
    kinds: np.ndarray
    task: str
    text: tuple[int, int] = NO_TEXT


def shard_name(number: int) -> str:
    return f"tokens-{number:05d}.safetensors"


def write_shard(path: Path, records: Sequence[Record], skipped: Sequence[str] = ()) -> None:
    """Writes one shard, atomically. skipped: a line for every bad record left out, kept in the file's header."""
    counts = Counter(record.task for record in records)
    names = sorted(counts)
    empty = [np.zeros(0, np.int32)]
    tensors: dict[str, np.ndarray] = {
        "ids": np.concatenate([record.ids for record in records] or empty).astype(np.int32),
        "kinds": np.concatenate([record.kinds for record in records] or empty).astype(np.int8),
        "ends": np.cumsum([len(record.ids) for record in records], dtype=np.int64),
        "task": np.array([names.index(record.task) for record in records], np.int16),
        "text": np.array([record.text for record in records], np.int32).reshape(-1, 2),
    }
    header = {"tasks": {name: counts[name] for name in names}, "skipped": list(skipped)}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, {"llada_uni": json.dumps(header)})


class TokenShard:
    """A shard opened for reading. tasks: name -> number of records; skipped: what was left out when it was made.

    UserError when the file is missing, damaged or no token shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="numpy")
            header = json.loads((self._file.metadata() or {})["llada_uni"])
            self.ends = self._file.get_tensor("ends")
            self._task = self._file.get_tensor("task")
            self._ids, self._kinds = self._file.get_slice("ids"), self._file.get_slice("kinds")
            # Shards of earlier versions do not say where the text stands.
            self._text = self._file.get_tensor("text") if "text" in self._file.keys() else None
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            reason = "there is no such file" if not path.is_file() else " ".join(str(error).split())[:100]
            raise UserError(f"{path} is no usable token shard ({reason})") from None
        self.tasks: dict[str, int] = header["tasks"]
        self.skipped: list[str] = header["skipped"]
        self._rows = {name: np.flatnonzero(self._task == number) for number, name in enumerate(self.tasks)}

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def tokens(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def record(self, task: str, number: int) -> Record:
        """The record with number `number` among those of `task`."""
        row = int(self._rows[task][number])
        start, stop = int(self.ends[row - 1]) if row else 0, int(self.ends[row])
        text = NO_TEXT if self._text is None else (int(self._text[row, 0]), int(self._text[row, 1]))
        return Record(self._ids[start:stop], self._kinds[start:stop], task, text)

    def learned_ids(self) -> np.ndarray:
        """Ids of all places that are learned: those whose kind is not CONTEXT."""
        return self._ids[:][self._kinds[:] != CONTEXT]

    def summary(self) -> dict[str, Any]:
        """Its entry in the manifest; "shortest": tokens of the shortest record of each task."""
        lengths = np.diff(self.ends, prepend=0)
        shortest = {task: int(lengths[rows].min()) for task, rows in self._rows.items()}
        return {"file": self.path.name, "records": len(self), "tokens": self.tokens, "tasks": self.tasks, "shortest": shortest}


def write_manifest(folder: Path, shards: Sequence[TokenShard], facts: dict[str, Any]) -> dict[str, Any]:
    """Writes `manifest.json` over the shards; facts: offset, codebook and hashes. Returns what it wrote."""
    tasks = sorted({name for shard in shards for name in shard.tasks})
    manifest = {
        **facts,
        "tasks": tasks,
        "records": sum(len(shard) for shard in shards),
        "skipped": sum(len(shard.skipped) for shard in shards),
        "shards": [shard.summary() for shard in shards],
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of token shards; UserError when there is none or a field is missing."""
    if not (folder / MANIFEST).is_file():
        raise UserError(f"there are no finished token shards in {folder} ({MANIFEST} is missing): run llada-uni data extract")
    manifest = read_json(folder / MANIFEST)
    require(manifest, _FIELDS, str(folder / MANIFEST))
    return manifest
