"""The Ray launcher: says what is missing without Ray; on two local workers the losses are those of one process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from llada_uni.errors import UserError
from llada_uni.training.recipes.recipe import read_recipe, train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "ray_train.py"
RECIPE = """
stage: siglip
out: alone
loop: {steps: 3, micro_batches: 2, log_every: 1}
options: {pictures: {count: 4}, evaluate_pictures: 8}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return "recipe.yaml"


def losses(run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in Path(run, "log.jsonl").read_text().splitlines()]


def test_without_ray_the_extra_is_named(recipe, monkeypatch):
    spec = importlib.util.spec_from_file_location("ray_train", SCRIPT)
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"llada-uni\[ray\]"):
        launcher.train_on_ray(recipe, [], workers=2)


@pytest.mark.slow
def test_two_workers_give_the_losses_of_one_process(recipe):
    pytest.importorskip("ray")
    train(read_recipe(recipe))
    command = [sys.executable, str(SCRIPT), "--workers", "2", recipe, "out=two"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert losses("two") == pytest.approx(losses("alone"), abs=1e-4)
