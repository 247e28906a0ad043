"""A small model directory with random weights, records of both kinds, and rewards: enough for whole runs of the stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from llada_uni.data.records import Conversation
from llada_uni.training.reward.rewards import Answer
from tests.tiny_model import WORDS, make_tiny_model

TEXTS = "texts.jsonl"
BOTH = "both.jsonl"


def make_folder(folder: Path, golden: Path) -> Path:
    """`model/` (block length 8, answers of up to 12 tokens), and records: TEXTS, and BOTH with drawings and questions too."""
    make_tiny_model(folder / "model", golden)
    Image.new("RGB", (32, 32), "green").save(folder / "green.png")
    image = {"type": "image", "image": "green.png"}
    texts = [_record("text", number, words, "a dog") for number, words in enumerate(WORDS)]
    drawn = [_record("t2i", number, words, [image]) for number, words in enumerate(WORDS)]
    asked = [_record("understand", 0, [image, {"type": "text", "text": WORDS[1]}], "nothing is there.")]
    for name, records in ((TEXTS, texts), (BOTH, [*texts, *drawn, *asked])):
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def _record(task: str, number: int, user: Any, answer: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return {"task": task, "messages": messages, "meta": {"number": number}}


def recipe(folder: Path, records: str = TEXTS, **options: Any) -> dict[str, Any]:
    """Plain data of a recipe of six steps."""
    small = {"data": {str(folder / records): 1.0}, "rewards": {f"{__name__}:evens": 1.0}, "prompts": 3, "group": 4}
    small |= {"length": 256, "init": str(folder / "model"), "unfinished": None, "dtype": "float32"}
    loop = {"steps": 6, "micro_batches": 2, "lr": 1e-2, "warmup": 0, "log_every": 1, "tensorboard": False, "save_seconds": 0}
    return {"stage": "reward", "out": str(folder / "run"), "loop": loop, "options": {**small, **options}}


def evens(record: Conversation, answer: Answer) -> float:
    """A reward that differs from answer to answer: the share of even bytes, or of even codes."""
    there = list(answer.image.codes) if answer.image is not None else list(answer.text.encode())
    return sum(one % 2 == 0 for one in there) / max(1, len(there))


def same(record: Conversation, answer: Answer) -> float:
    return 0.5


def broken(record: Conversation, answer: Answer) -> float:
    raise KeyError("no such thing")


def nothing(record: Conversation, answer: Answer) -> float:
    return float("nan")


def words(record: Conversation, answer: Answer) -> Any:
    return "good"
