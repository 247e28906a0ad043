"""What the tests of data share: records on disk, a model with an image tokenizer, token shards from plain lists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from llada_uni.data.kinds import TEXT
from llada_uni.data.shards import Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.text.tokenizer import train_tokenizer

WORDS = ["a red thing", "what color is it?", "red", "draw a red thing on blue", "a cat and a dog on green"]


def image(name: str) -> dict:
    return {"type": "image", "image": name}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def user(*parts: dict) -> dict:
    return {"role": "user", "content": list(parts)}


def assistant(*parts: dict) -> dict:
    return {"role": "assistant", "content": list(parts)}


def drawing(words: str = "a red thing", name: str = "red.png") -> dict:
    return {"task": "t2i", "messages": [{"role": "user", "content": words}, assistant(image(name))]}


def question(words: str = "what color is it?", answer: str = "red", name: str = "red.png") -> dict:
    return {"task": "understand", "messages": [user(image(name), text(words)), {"role": "assistant", "content": answer}]}


def write_records(folder: Path, records: Sequence[dict | str], name: str = "records.jsonl") -> Path:
    """A JSONL file (a string is written as it is), with a red and a blue picture beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for color, size in (("red", (64, 64)), ("blue", (96, 64))):
        Image.new("RGB", size, color).save(folder / f"{color}.png")
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def small_model(folder: Path, golden: Path) -> Path:
    """A directory with an image tokenizer (32 x 32 pixels are 4 x 4 codes, random weights) and a text tokenizer."""
    shutil.copytree(
        golden / "image_tokenizer", folder / "image_tokenizer", ignore=shutil.ignore_patterns("*.png", "tokens.json")
    )
    path = folder / "image_tokenizer" / "preprocessor_config.json"
    shaping = {"size_factor": 32, "edit_max_cells": 1, "edit_scale": True}
    shaping |= {
        f"understand_{name}": area for name, area in (("min_pixels", 1000), ("max_pixels", 1100), ("max_pixels_multi", 1100))
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | shaping))
    train_tokenizer(WORDS * 2, 480).save(folder / "tokenizer.json")
    return folder


def token_folder(folder: Path, shards: Sequence[Sequence[tuple[str, int]]]) -> Path:
    """Token shards of records (task, length); the number n of a record stands in its first places: n % 1000, n // 1000."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for place, shard in enumerate(shards):
        records = []
        for task, length in shard:
            ids = np.full(length, 7, np.int32)
            ids[:2] = number % 1000, number // 1000
            records.append(Record(ids, np.full(length, TEXT, np.int8), task))
            number += 1
        write_shard(folder / shard_name(place), records)
    facts = {"image_token_offset": 512, "codebook_size": 16, "text_tokenizer": "", "image_tokenizer": ""}
    write_manifest(folder, [TokenShard(folder / shard_name(n)) for n in range(len(shards))], facts)
    train_tokenizer(WORDS * 2, 480).save(folder / "tokenizer.json")
    return folder


def number_of(record: Record) -> int:
    """Which record of a `token_folder` this is."""
    return int(record.ids[0]) + 1000 * int(record.ids[1])
