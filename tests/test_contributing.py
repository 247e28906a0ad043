"""The examples of CONTRIBUTING.md, as they stand there: each is put where it says, and must work."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from llada_uni import plugins
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import conversations, open_source
from llada_uni.model import UniModel
from llada_uni.training.recipes.recipe import Recipe, train
from llada_uni.training.reward.rewards import Answer, find_reward
from tests.changed_package import PACKAGE, changed_package, run_there

PAGE = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(heading: str) -> str:
    """The code below a heading."""
    section = PAGE.split(f"## ... {heading}\n", 1)[1]
    return re.search(r"```python\n(.*?)```", section, re.S)[1]


@pytest.fixture(scope="module")
def shipped() -> UniModel:
    return UniModel.from_pretrained()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a module of an example and imports it."""

    def make(heading: str) -> ModuleType:
        name = "contributed_" + heading.replace(" ", "_")
        (tmp_path / f"{name}.py").write_text(example(heading), encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        return import_module(name)

    yield make
    for name in [name for name in sys.modules if name.startswith("contributed_")]:
        del sys.modules[name]


@pytest.fixture
def plugin(module, monkeypatch: pytest.MonkeyPatch):
    """Installs an example as a plug-in of another package."""

    def install(heading: str) -> None:
        name = module(heading).__name__
        monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint(name, name, group)])
        plugins._plugins.cache_clear()
        plugins.table.cache_clear()

    yield install
    plugins._plugins.cache_clear()
    plugins.table.cache_clear()


def test_a_setting(tmp_path):
    text = (PACKAGE / "generation" / "params.py").read_text(encoding="utf-8")
    begin = '    panel = "Sampling"\n\n    steps:'
    assert text.count(begin) == 1
    changed = text.replace("    steps:", f"{example('a sampling setting')}    steps:", 1)
    there = changed_package(tmp_path, "generation/params.py", changed)
    shown = run_there(there, "-m", "llada_uni", "generate", "--help")
    assert "--patience" in shown and "--reasoning-patience" in shown and "1 to 9" in shown


USE_RULE = """
import torch
from llada_uni.backbone import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.generation import engine, oracle
from llada_uni.generation.settings import Settings
from llada_uni.requests import Draw

assert Draw(prompt="a cat", rule="half").rule == "half"
config = BackboneConfig.from_json(GOLDEN)
model = Backbone(config, generator=torch.Generator().manual_seed(1)).eval()
settings = Settings(mask_id=7, block_length=8, steps=8, gen_length=16, rule="half")
made = [way.generate(model, [1, 2, 3], settings) for way in (oracle, engine)]
assert made[0].tokens == made[1].tokens and made[0].accepted == made[1].accepted
print(made[0].accepted[0])
"""


def test_a_rule(tmp_path, golden):
    text = (PACKAGE / "generation" / "unmasking.py").read_text(encoding="utf-8")
    there = changed_package(tmp_path, "generation/unmasking.py", f"{text}\n\n{example('an acceptance rule')}")
    code = USE_RULE.replace("GOLDEN", repr(str(golden / "backbone" / "config.json")))
    assert run_there(there, "-c", code).strip() == "3"  # of five open positions of the first block


def test_a_task(shipped, module):
    ours = module("a task")
    first = shipped.generate_image("a cartoon cat at the top left on blue", seed=1, decoder="none").codes
    try:
        made = shipped.run(ours.Redraw(image=first, seed=2, decoder="none", cfg_scale=2.0))
        assert "cat" in made.prompt and made.codes.height == first.height
        with pytest.raises(ValueError, match=r"cfg_scale must be a number from 0 to 100, not 1000"):
            ours.Redraw(image=first, cfg_scale=1000)
    finally:
        del ours.TASKS[ours.Redraw]


def test_a_stage(plugin, tmp_path):
    plugin("a training stage")
    loop = {"steps": 60, "lr": 0.1, "log_every": 20}
    done = train(Recipe.from_plain({"stage": "mean", "out": str(tmp_path / "run"), "loop": loop, "options": {"width": 3}}))
    assert done["finished"] and done["metrics"]["distance"] < 2.0
    learned = load_file(tmp_path / "run" / "model" / "mean.safetensors")["value"]
    assert learned.shape == (3,) and torch.all((learned - 1).abs() < 0.8)


def test_a_reward(plugin):
    plugin("a reward")
    reward = find_reward("brief")
    said = [Answer(text, None, True, 3) for text in ("", "yes", "yes it is there")]
    assert [reward(None, answer) for answer in said] == [0.0, 1.0, 0.25]


def test_a_source(plugin):
    plugin("a data source")
    bad = BadRecords("stop")
    found = list(conversations(open_source("squares:12"), bad))
    assert len(found) == 12 and not bad.found
    assert list(found[6].texts()) == ["what is 7 times 7?", "49."]


def test_an_adapter(shipped, module):
    draw = module("an adapter").as_function(shipped)
    assert {"cfg_scale", "image_steps", "decoder_steps"} <= set(draw.settings)
    assert draw("a flat fox on white", seed=1, decoder_steps=2).width == 192
