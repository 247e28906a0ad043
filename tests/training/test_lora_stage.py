"""LoRA as a recipe of the stage `backbone`: adapter and merged weights agree, alone, exported, and sharded over processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.load import load_backbone, save_backbone
from llada_uni.training.export import export_model
from llada_uni.training.language.lora import load_adapter
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.recipes.recipe import read_recipe, train
from tests.backbone.helpers import small_config
from tests.training.helpers.together import together
from tests.training.token_folder import CODEBOOK, make_token_folder

RECIPE = """
stage: backbone
out: run
loop: {steps: 3, micro_batches: 2, lr: 1e-2, warmup: 0, log_every: 1, tensorboard: false}
options:
  init: base
  data: {tokens: 1.0}
  samples: 3
  length: 64
  masking: {block: 8}
  lora: {rank: 2, alpha: 4}
  balance: 0.0
  dtype: float32
"""
IDS = torch.arange(100, 108)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base model, data and a recipe with whole paths."""
    folder = tmp_path_factory.mktemp("lora")
    make_token_folder(folder / "tokens")
    save_backbone(Backbone(small_config(vocab_size=400 + CODEBOOK, image_token_offset=400)), folder / "base")
    text = RECIPE.replace("out: run", f"out: {folder}/run").replace("init: base", f"init: {folder}/base")
    (folder / "recipe.yaml").write_text(text.replace("{tokens:", f"{{{folder}/tokens:"))
    train(read_recipe(folder / "recipe.yaml"))
    return folder


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_merged_export_equals_base_and_adapter(folder, tmp_path):
    merged = load_backbone(folder / "run" / "model")(IDS)
    base = load_backbone(folder / "base")
    assert (merged - base(IDS)).abs().max() > 1e-3
    adapter = folder / "run" / "model" / "adapter"
    torch.testing.assert_close(load_adapter(base, adapter)(IDS), merged, atol=1e-5, rtol=1e-5)
    exported = export_model(tmp_path / "model", [folder / "base"], adapter=adapter)
    torch.testing.assert_close(load_backbone(exported.folder)(IDS), merged, atol=1e-5, rtol=1e-5)


def test_embeddings_and_head_are_exported_and_merged(folder, tmp_path):
    """Also where the network is built without memory and filled later: the same losses."""
    lora = "options.lora={rank: 2, alpha: 4, embeddings: true, head: true}"
    for name in ("run", "low"):
        low = f"options.low_memory={name == 'low'}"
        train(read_recipe(folder / "recipe.yaml", [f"out={tmp_path}/{name}", lora, low]))
    assert losses(tmp_path / "run") == losses(tmp_path / "low")
    base, merged = load_backbone(folder / "base"), load_backbone(tmp_path / "run" / "model")
    assert not torch.equal(merged.lm_head.weight, base.lm_head.weight)
    assert not torch.equal(merged.model.word_embeddings.weight, base.model.word_embeddings.weight)
    adapter = tmp_path / "run" / "model" / "adapter"
    torch.testing.assert_close(load_adapter(base, adapter)(IDS), merged(IDS), atol=1e-5, rtol=1e-5)
    exported = export_model(tmp_path / "model", [folder / "base"], adapter=adapter)
    torch.testing.assert_close(load_backbone(exported.folder)(IDS), merged(IDS), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_two_processes_with_sharded_weights_give_the_losses_of_one(folder, tmp_path, recompute):
    changes = [f"out={tmp_path}/two", "parallel.shard=true", f"parallel.activation_checkpointing={recompute}"]
    together(2, train_changed, str(folder / "recipe.yaml"), changes)
    assert losses(tmp_path / "two") == pytest.approx(losses(folder / "run"), abs=1e-4)
    weights = [load_backbone(run / "model")(IDS) for run in (tmp_path / "two", folder / "run")]
    torch.testing.assert_close(*weights, atol=1e-3, rtol=1e-3)


def train_changed(processes: Processes, recipe: str, changes: list[str]) -> None:
    torch.set_num_threads(1)
    train(read_recipe(recipe, changes))
