"""Each command runs on a tiny backbone, checks that both sides agree, and writes its rows."""

from __future__ import annotations

import json

import pytest

from benchmarks import batch, experts, generation, scaling
from benchmarks.peers import pipeline_tokens
from llada_uni.generation import engine
from llada_uni.generation.settings import Generation, Settings
from tests.benchmarks.helpers import tiny, tiny_backbone  # noqa: F401


def rows_of(file) -> list[dict]:
    rows = json.loads(file.read_text())["rows"]
    assert all(row["ours"] > 0 for row in rows if row["unit"] not in ("", "of a step"))
    return rows


def test_generation(tiny, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(generation, "shipped_cases", lambda repeats: (tiny_backbone(), []))
    monkeypatch.setattr(generation, "int4_of", lambda model: model)  # int4 needs wider rows than a tiny network has
    assert generation.main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = rows_of(tmp_path / "rows.json")
    assert [row["peer"] for row in rows] == list(generation.PEERS) * 2
    assert all(row["more"].get("equal tokens", 1.0) == 1.0 for row in rows)
    assert generation.main(["--quick", "--only", "image SPRINT", "--json", str(tmp_path / "rows.json")]) == 0
    assert [row["case"] for row in rows_of(tmp_path / "rows.json")] == ["image 128, guided"]


def test_a_difference_between_the_sides_is_an_error():
    model = tiny_backbone()
    case = generation.text_case(model, 8, 8, 1)
    other = generation.Side(lambda: [Generation([1])])
    with pytest.raises(AssertionError, match="different tokens"):
        generation.compare(model, case, "a peer", other)


def test_the_pipeline_of_diffusers_gives_our_tokens():
    """Behind prompts that end anywhere in a block, with thresholds that matter."""
    model = tiny_backbone()
    for length, threshold in ((5, 0.3), (8, 0.6), (13, 0.9)):
        settings = Settings(
            mask_id=31, block_length=4, steps=4, threshold=threshold, gen_length=16 - length % 4, allowed=range(31)
        )
        prompt = list(range(length))
        assert pipeline_tokens(model, prompt, settings) == engine.generate(model, prompt, settings).tokens


def test_batch(tiny, tmp_path):  # noqa: F811
    assert batch.main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = rows_of(tmp_path / "rows.json")
    assert [row["case"] for row in rows][:2] == ["middle, 1 requests", "middle, 8 requests"]
    assert all(row["more"]["at most"] > 0 for row in rows)


def test_products_include_those_of_the_experts(tiny):  # noqa: F811
    """More than attention's projections and the experts of the prompt alone; the experts' path is as it was."""
    model = tiny_backbone()
    config, prompt = model.config, 4  # requests have prompts of 4 to 8 places
    heads = 2 * (config.num_attention_heads + config.num_key_value_heads)
    experts = 3 * (config.num_experts_per_tok + 1) * config.moe_intermediate_size
    least = 2 * prompt * config.hidden_size * (config.num_hidden_layers * heads * config.head_dim + experts)
    assert batch.products(model, 1, 4, 8) > least
    assert model.model.layers[-1].mlp.experts.path == "grouped"


def test_experts(tmp_path, monkeypatch):
    monkeypatch.setattr(experts, "LAYERS", {"tiny": (64, 32)})
    assert experts.main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = {row["case"]: row for row in rows_of(tmp_path / "rows.json")}
    assert rows["tiny layer, 8 experts"]["more"]["at most"] > 0
    assert (
        rows["tiny layer, 64 experts, int8"]["more"]["error"]
        < 0.03
        < rows["tiny layer, 64 experts, int4"]["more"]["error"]
        < 0.2
    )


def test_scaling(tiny, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(scaling.common, "memory_bandwidth", lambda: 1e10)
    monkeypatch.setattr(scaling.common, "matmul_rate", lambda: 1e11)
    assert scaling.main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = rows_of(tmp_path / "rows.json")
    assert {"prefix: exponent", "batch: exponent"} <= {row["case"] for row in rows}
    assert any(row["case"].startswith("share of") for row in rows)
    assert scaling.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
