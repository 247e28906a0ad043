"""What lmms-eval asks and how it judges in the task `world_questions` (its YAML names these functions)."""

from __future__ import annotations

import json
from typing import Any

from PIL import Image

from llada_uni.world.evaluation.scoring import score_answer


def images(record: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in record["images"]]


def question(record: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    return str(record["question"])


def judge(record: dict[str, Any], results: list[str]) -> dict[str, float]:
    """right: 1 where the words that decide are the canonical ones."""
    return {"right": score_answer(json.loads(record["expect"]), results[0])["right"]}
