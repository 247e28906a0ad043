"""The scripts of examples/ and the code of docs/adapters.md, each run as a user would run it, with the shipped model."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from llada_uni.model import UniModel
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.scheduler.service import Service
from tests.serving.servers import live, wait_for

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example with these words on its command line; what it printed."""

    def run(name: str, *words: object) -> str:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        script.main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def uni():
    return UniModel.from_pretrained("world", "cpu")


def test_openai_client(run, uni, tmp_path):
    service = Service(uni)
    service.start()
    try:
        wait_for(lambda: service.ready, "the model")
        with live(create_app(service, ServerOptions())) as address:
            said = run("openai_client", "--base-url", f"{address}/v1", "--out", tmp_path).splitlines()
    finally:
        service.close()
    assert said[1] == "cat"
    drawn = uni.generate_image("a cat at the top left and a dog at the bottom right on green", seed=1)
    assert Image.open(tmp_path / "drawn.png").tobytes() == drawn.image.tobytes()
    assert uni.understand(tmp_path / "edited.png", "what is at the top left?").text == "fox"
    assert len(list(tmp_path.glob("story-*.png"))) == 2


def test_diffusers_pipeline(run, uni, tmp_path):
    said = run("diffusers_pipeline", "--model", uni.folder, "--out", tmp_path)
    assert "step  0: " in said and " 0 places without a draft" in said
    assert len(list(tmp_path.glob("drawn-*.png"))) == 2
    assert "fox" in (
        uni.understand(tmp_path / "edited.png", f"what is at the {side}?").text for side in ("top left", "bottom right")
    )
    assert uni.understand(tmp_path / "filled.png", "what is at the top left?").text == "robot"


def test_transformers_backbone(run, uni, tmp_path):
    uni.generate_image("a cat at the top left and a dog at the bottom right on green", seed=1).save(tmp_path / "cat.png")
    answer, loss = run("transformers_backbone", tmp_path / "cat.png", "what is at the top left?", "--model", uni.folder).split(
        "\n", 1
    )
    assert answer == "cat" and loss.startswith("loss 0.")


def test_transformers_pipelines(run, uni, tmp_path):
    uni.generate_image("a cat at the top left and a dog at the bottom right on green", seed=1).save(tmp_path / "cat.png")
    said = run("transformers_pipelines", tmp_path / "cat.png", "what is at the top left?", "--model", uni.folder).splitlines()
    assert said[:2] == ["cat", "green"] and said[-1].strip() == "cat", "the last one was streamed"


def test_peft_lora(run, uni, tmp_path):
    said = run("peft_lora", "--model", uni.folder, "--steps", 40, "--out", tmp_path).splitlines()
    assert said[-2:] == ["with the adapter: green", "merged: green"]


def test_transformers_trainer(run, uni, tmp_path):
    said = run("transformers_trainer", "--model", uni.folder, "--steps", 4, "--out", tmp_path)
    assert "went on to step 4" in said
    assert "losses: " in said
    trained = UniModel.from_pretrained(tmp_path / "checkpoint-4", "cpu")
    before, after = (one.parts.backbone.lm_head.weight for one in (uni, trained))
    assert before.shape == after.shape and not before.equal(after), "a checkpoint is a model directory"


def test_async_use(run, uni, tmp_path):
    said = run("async_use", "--model", uni.folder, "--out", tmp_path)
    assert "green pink" in said and "EndEvent" in said and len(list(tmp_path.glob("*.png"))) == 2


def test_structured_output(uni, capsys, monkeypatch):
    """By the openai client; scripts/clients/ run the other two, which are not installed here."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import structured_output

    service = Service(uni)
    service.start()
    try:
        wait_for(lambda: service.ready, "the model")
        with live(create_app(service, ServerOptions())) as address:
            structured_output.by_openai(f"{address}/v1", "llada-uni")
    finally:
        service.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["openai parse", "openai tools"]
    assert all("name=" in line and "age=" in line for line in lines)


def test_the_code_of_the_page_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adapters.md").read_text(), re.DOTALL):
        exec(block, names)
    assert (tmp_path / "cat.png").is_file() and capsys.readouterr().out.strip() == "cat"


def test_the_configuration_on_the_page_is_json():
    page = (ROOT / "docs" / "adapters.md").read_text()
    (block,) = re.findall(r'^    \{"model".*?\}\}$', page, re.DOTALL | re.MULTILINE)
    assert json.loads(block)["model"]["llada-uni"]["class"] == "GPT4V"
