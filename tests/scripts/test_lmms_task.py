"""The task that examples/lmms_eval writes: its questions, images and judge. scripts/test_lmms_eval.py runs lmms-eval itself."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "examples" / "lmms_eval"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_task_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["world_task.py", str(tmp_path / "task"), "--count", "9"])
    load(FOLDER / "world_task.py").main()
    text = (tmp_path / "task" / "world_questions.yaml").read_text().replace("!function ", "")
    task, utils = yaml.safe_load(text), load(tmp_path / "task" / "utils.py")
    lines = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 9 and {len(record["images"]) for record in records} == {1, 2}
    asked = {task[name].removeprefix("utils.") for name in ("doc_to_visual", "doc_to_text", "process_results")}
    assert asked <= set(vars(utils))
    for record in records:
        assert all(image.size == (192, 192) for image in utils.images(record))
        assert utils.question(record) == record["question"]
        assert utils.judge(record, [record["answer"]]) == {"right": 1.0}
        assert utils.judge(record, ["a wrong word"]) == {"right": 0.0}
    (metric,) = task["metric_list"]
    assert metric["metric"] == "right"


def test_lmms_eval_itself(tmp_path, monkeypatch):
    """Where it is installed: the command line with our model in it, on three questions."""
    pytest.importorskip("lmms_eval")
    monkeypatch.setattr(sys, "argv", ["world_task.py", str(tmp_path), "--count", "3"])
    load(FOLDER / "world_task.py").main()
    words = ["--model", "llada_uni", "--model_args", "pretrained=world", "--tasks", "world_questions", "--include_path"]
    monkeypatch.setattr(sys, "argv", ["run.py", *words, str(tmp_path), "--output_path", str(tmp_path / "out")])
    module = load(FOLDER / "run.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.main()
    assert list((tmp_path / "out").rglob("*_results.json"))
