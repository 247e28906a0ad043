"""A job's parts answer to all that tasks ask of the real ones: a task that works in Python works behind the server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llada_uni
from llada_uni.serving.scheduler.shared_parts import SharedDecoder, SharedEngine, SharedImageTokenizer

TASKS = Path(llada_uni.__file__).parent / "tasks"
SHARED = {"engine": SharedEngine, "image_tokenizer": SharedImageTokenizer, "decoder": SharedDecoder}
OF_INSTANCES = {"image_tokenizer": {"settings"}, "decoder": {"variants"}}


@pytest.mark.parametrize("part", SHARED)
def test_tasks_find_what_they_ask_for(part):
    source = "\n".join(path.read_text(encoding="utf-8") for path in TASKS.rglob("*.py") if path.name != "save.py")
    asked = set(re.findall(rf"parts\.{part}\.(\w+)", source))
    assert asked <= set(dir(SHARED[part])) | OF_INSTANCES.get(part, set())
