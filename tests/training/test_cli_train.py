"""The commands train and export: what they print, write and refuse; the same command under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from llada_uni.cli import main
from llada_uni.training.recipes import stages
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[2]
TOY = """
stage: toy
out: run
loop: {steps: 4, micro_batches: 2, lr: 0.1, warmup: 0, log_every: 1, ema: 0.5}
options: {width: 3}
"""


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setitem(stages.STAGES, "toy", "tests.training.toy_stage:ToyOptions")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(TOY)
    return tmp_path


@pytest.fixture
def call(capsys):
    """Runs a command; (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def losses(run: str | Path) -> list[float]:
    return [json.loads(line)["loss"] for line in Path(run, "log.jsonl").read_text().splitlines()]


def test_train_leaves_a_run_directory(call):
    assert call("train", "toy.yaml", "seed=3")[0] == 0
    assert {"recipe.yaml", "log.jsonl", "checkpoints", "model"} <= {path.name for path in Path("run").iterdir()}
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["seed"] == 3
    assert len(losses("run")) == 4


def test_a_dry_run_shows_and_writes_nothing(call, here):
    code, out, _ = call("train", "toy.yaml", "--dry-run", "options.width=5")
    assert code == 0 and "width: 5" in out and "parameters: 5 trained, 0 frozen" in out
    assert "a step: 2 micro-batches" in out and "noisy [5]" in out and "loss 0." in out
    assert [path.name for path in here.iterdir()] == ["toy.yaml"]


def test_keys_and_mistakes(call):
    code, out, _ = call("train", "toy.yaml", "--keys")
    assert code == 0 and "options.width: int = 4" in out and "options.lora: LoraOptions | None = None" in out
    for arguments, words in (
        (("none.yaml",), "there is no recipe none.yaml"),
        (("toy.yaml", "options.widht=3"), "did you mean width?"),
        (("toy.yaml", "loop.micro_batches=0"), "micro_batches"),
    ):
        code, out, err = call("train", *arguments)
        assert code == 2 and out == "" and err.count("\n") == 1 and words in err


def test_export_of_a_checkpoint_with_and_without_averages(call):
    assert call("train", "toy.yaml", "loop.save_every=2", "loop.keep=5")[0] == 0
    for name, options in (("last", ()), ("two", ("--checkpoint", 2)), ("raw", ("--checkpoint", 2, "--no-ema"))):
        code, _, err = call("export", name, "run", *options)
        assert code == 0, err
    last, two, raw = (load_file(f"{name}/decoder/model.safetensors")["value"] for name in ("last", "two", "raw"))
    assert not torch.equal(last, two) and not torch.equal(two, raw)
    code, _, err = call("export", "none", "run", "--checkpoint", 3)
    assert code == 2 and "step 3" in err and not Path("none").exists()


def test_export_puts_parts_together(call, here, golden):
    tiny = make_tiny_model(here / "tiny", golden)
    code, out, _ = call("export", "mine", tiny, "--dtype", "bfloat16", "--json")
    assert code == 0 and json.loads(out)["missing"] == [] and json.loads(out)["parts"]["vae"] == str(tiny)
    (tiny / "generation_config.json").unlink()
    code, out, err = call("export", "mine", tiny)
    assert code == 0 and out == "" and "not there: settings, needed for" in err
    for arguments, words in (
        (("mine", "nowhere"), "no part of a model"),
        (("mine", tiny, "--dtype", "int4"), "float16"),
        (("mine", tiny, "--layout", "other"), "released, stacked"),
        (("mine", tiny, "--adapter", "nowhere"), "no adapter"),
    ):
        code, _, err = call("export", *arguments)
        assert code == 2 and err.count("\n") == 1 and words in err
    assert call("info", "mine")[0] == 0


def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "llada_uni", "train", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "loop.steps=50" in done.stdout and "torchrun" in done.stdout


def torchrun(here: Path, *changes: str) -> subprocess.CompletedProcess:
    words = ["--standalone", "--nproc-per-node", "2", "-m", "tests.training.toy_stage", "train", str(here / "toy.yaml")]
    command = [sys.executable, "-m", "torch.distributed.run", *words, *changes]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_two_processes_of_torchrun_give_the_losses_of_one(call, here):
    assert call("train", "toy.yaml", "out=alone")[0] == 0
    done = torchrun(here, f"out={here}/two")
    assert done.returncode == 0, done.stderr
    assert losses("two") == pytest.approx(losses("alone"), abs=1e-4)
    assert (done.stdout + done.stderr).count("step=4") == 1  # one process speaks for both
    weights = [load_file(f"{run}/model/decoder/model.safetensors")["value"] for run in ("two", "alone")]
    torch.testing.assert_close(*weights, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_mistake_ends_every_process(here):
    done = torchrun(here, f"out={here}/three", "loop.micro_batches=3")
    assert done.returncode != 0 and "multiple of 2" in done.stderr and not Path("three/checkpoints").exists()
