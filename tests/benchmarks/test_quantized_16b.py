"""The phases of the 16 B benchmark, at a size of seconds."""

from __future__ import annotations

import dataclasses
import json

import torch

from benchmarks import quantized_16b
from llada_uni.checkpoint.layout import layout_of
from llada_uni.files.weights import WeightFiles


def small_config():
    return dataclasses.replace(
        quantized_16b.config_of(2, quick=True), hidden_size=128, moe_intermediate_size=64, num_experts=16,
        num_attention_heads=2, num_key_value_heads=1, head_dim=64, intermediate_size=64, vocab_size=1024,
        image_token_offset=512,
    )  # fmt: skip


def test_random_model_has_the_released_layout(tmp_path):
    quantized_16b.write_random_model(tmp_path / "model", small_config(), max_shard_bytes=10**6)
    weights = WeightFiles(tmp_path / "model")
    assert layout_of(weights) == "released"
    assert len(weights.files) > 1
    assert weights.dtypes["lm_head.weight"] == torch.bfloat16
    assert weights.dtypes["model.layers.1.mlp.gate.weight"] == torch.float32
    first, second = (weights.tensor(f"model.layers.1.mlp.experts.{e}.up_proj.weight").float() for e in (0, 1))
    assert not torch.equal(first, second)
    assert abs(first.std().item() - 0.02) < 0.001
    assert torch.equal(weights.tensor("model.norm.weight").float(), torch.ones(128))


def test_all_phases(tmp_path, monkeypatch, capsys):
    config = small_config()
    monkeypatch.setattr(quantized_16b, "config_of", lambda layers, quick: config)
    where, file = tmp_path / "files", tmp_path / "rows.json"
    assert quantized_16b.main(["--quick", "--dir", str(where), "--threads", "1", "--json", str(file)]) == 0
    rows = {row["case"].rsplit(",", 1)[0]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["quantize to int4, peak memory"]["ours"] < 1
    assert rows["one step of 32 tokens, prefix 64"]["ours"] > 0
    assert rows["4 accepted a step"]["ours"] > 0
    assert list(where.iterdir()) == []
    assert "quantizing to int4" in capsys.readouterr().out


def test_random_quantized_weights_run_without_plain_ones(tmp_path, monkeypatch):
    config = small_config()
    monkeypatch.setattr(quantized_16b, "config_of", lambda layers, quick: config)
    file = tmp_path / "rows.json"
    assert quantized_16b.main(["--direct", "--dir", str(tmp_path), "--threads", "1", "--json", str(file)]) == 0
    cases = [row["case"].rsplit(",", 1)[0] for row in json.loads(file.read_text())["rows"]]
    assert cases[0] == "load int4" and "one step of 32 tokens, prefix 64" in cases
