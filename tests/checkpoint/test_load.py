"""The backbone's files: both layouts, shards, conversion without loss, and every way they can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_uni.checkpoint.layout import layout_of, places, released_shapes, stacked_shapes
from llada_uni.checkpoint.load import convert, load_backbone, save_backbone
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.weights import WeightFiles


@pytest.fixture(scope="module")
def released(golden):
    return load_file(golden / "backbone" / "model.safetensors")


@pytest.fixture(scope="module")
def model(golden):
    return load_backbone(golden)


@pytest.fixture
def copy(golden, tmp_path):
    """The backbone at the top of a directory, as in a released model."""
    return shutil.copytree(golden / "backbone", tmp_path / "model")


def read(folder: Path) -> dict[str, torch.Tensor]:
    weights = WeightFiles(folder)
    return {name: weights.tensor(name) for name in weights}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first
    )


def test_table_names_the_recorded_file(golden, released):
    config = BackboneConfig.from_json(golden / "backbone" / "config.json")
    assert released_shapes(config) == {name: tuple(tensor.shape) for name, tensor in released.items()}


def test_every_expert_lands_in_its_place(model, released):
    state = model.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == stacked_shapes(model.config)
    for place in places(model.config):
        for expert, name in enumerate(place.released):
            mine = state[place.name][expert] if place.stacked else state[place.name]
            assert torch.equal(mine, released[name]), name


def test_loaded_model_is_ready(model):
    assert not model.training
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_top_of_a_directory_loads_as_well(copy, model):
    assert same(dict(load_backbone(copy).state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("layout", ["released", "stacked"])
@pytest.mark.parametrize("shard", [10**9, 200_000])
def test_save_and_read_back(model, released, tmp_path, layout, shard):
    save_backbone(model, tmp_path, layout, max_shard_bytes=shard)
    found = read(tmp_path)
    assert layout_of(found) == layout
    if layout == "released":
        assert same(found, released)
    sizes = [file.stat().st_size for file in tmp_path.glob("*.safetensors")]
    assert (len(sizes) > 1) == (shard == 200_000)
    assert max(sizes) < shard + 50_000
    again = load_backbone(tmp_path)
    assert again.config == model.config
    assert same(dict(again.state_dict()), dict(model.state_dict()))
    assert not list(tmp_path.glob(".*"))


def test_config_is_written_back_whole(golden, model, tmp_path):
    save_backbone(model, tmp_path)
    before = json.loads((golden / "backbone" / "config.json").read_text())
    assert before.items() <= json.loads((tmp_path / "config.json").read_text()).items()


def test_saving_again_leaves_no_stale_weights(model, tmp_path):
    save_backbone(model, tmp_path, "stacked", max_shard_bytes=200_000)
    save_backbone(model, tmp_path, "released")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    save_backbone(model, tmp_path, "stacked", max_shard_bytes=200_000)
    assert not (tmp_path / "model.safetensors").exists()
    assert layout_of(read(tmp_path)) == "stacked"


def test_half_precision_keeps_the_router(model, tmp_path):
    save_backbone(model, tmp_path, dtype=torch.bfloat16)
    for name, tensor in read(tmp_path).items():
        assert tensor.dtype == (torch.float32 if ".mlp.gate." in name else torch.bfloat16), name
    assert (
        load_backbone(tmp_path, dtype=torch.bfloat16).model.layers[1].mlp.gate.weight.dtype == torch.float32
    )
    assert load_backbone(tmp_path).lm_head.weight.dtype == torch.float32


def test_a_failed_save_leaves_the_old_weights(model, tmp_path, monkeypatch):
    save_backbone(model, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def fail(*_args, **_options):
        raise OSError("no space left")

    monkeypatch.setattr("llada_uni.checkpoint.load.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save_backbone(model, tmp_path, "stacked", max_shard_bytes=200_000)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_convert_there_and_back(golden, released, tmp_path):
    assert convert(golden, tmp_path / "ours") == "stacked"
    assert layout_of(read(tmp_path / "ours" / "backbone")) == "stacked"
    assert convert(tmp_path / "ours", tmp_path / "theirs", max_shard_bytes=200_000) == "released"
    assert same(read(tmp_path / "theirs" / "backbone"), released)
    others = {path.relative_to(golden) for path in golden.rglob("*") if path.is_file()}
    copied = {
        path.relative_to(tmp_path / "ours") for path in (tmp_path / "ours").rglob("*") if path.is_file()
    }
    assert others == copied
    assert (tmp_path / "ours" / "vae" / "config.json").read_bytes() == (
        golden / "vae" / "config.json"
    ).read_bytes()


def test_convert_at_the_top_and_to_a_dtype(copy, tmp_path, released):
    assert convert(copy, tmp_path / "same", "released") == "released"
    assert same(read(tmp_path / "same"), released)
    convert(copy, tmp_path / "half", "stacked", torch.float16)
    assert read(tmp_path / "half")["lm_head.weight"].dtype == torch.float16


def test_convert_keeps_every_bit_of_a_half_precision_model(copy, released, tmp_path):
    half = {name: tensor.bfloat16() for name, tensor in released.items()}
    save_file(half, copy / "model.safetensors")
    convert(copy, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs")
    assert same(read(tmp_path / "theirs"), half)


def test_convert_refuses(copy, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        convert(copy, tmp_path / "there")
    with pytest.raises(UserError, match="lies inside"):
        convert(copy, copy / "inside")
    with pytest.raises(UserError, match="unknown layout 'other'; allowed: released, stacked"):
        convert(copy, tmp_path / "new", "other")
    with pytest.raises(UserError, match="there is no model directory"):
        convert(tmp_path / "none", tmp_path / "new")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(UserError, match="truncated"):
        convert(copy, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "there"]


def test_no_backbone(tmp_path):
    with pytest.raises(UserError, match="there is no model directory"):
        load_backbone(tmp_path / "none")
    with pytest.raises(UserError, match="has no backbone"):
        load_backbone(tmp_path)


def test_missing_config_field(copy):
    config = json.loads((copy / "config.json").read_text())
    del config["num_experts"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="num_experts"):
        load_backbone(copy)


def test_broken_tensors(copy, released):
    name = "model.layers.1.mlp.experts.3.up_proj.weight"

    def change(tensors):
        save_file(tensors, copy / "model.safetensors")

    change({**released, name: torch.zeros(32, 63)})
    with pytest.raises(
        UserError, match=r"experts.3.up_proj.weight has the shape \[32, 63\], expected \[32, 64\]"
    ):
        load_backbone(copy)
    change({key: tensor for key, tensor in released.items() if key != name})
    with pytest.raises(UserError, match=f"lacks the tensor {name}"):
        load_backbone(copy)
    change({**released, "model.layers.7.mlp.gate.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"unknown tensor model.layers.7.mlp.gate.weight"):
        load_backbone(copy)
    change({**released, "model.layers.1.mlp.experts.gate_proj": torch.zeros(1)})
    with pytest.raises(UserError, match="mix the released and the stacked layout"):
        load_backbone(copy)


def test_config_that_does_not_fit_the_weights(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": 512}))
    with pytest.raises(UserError, match=r"has the shape \[256, 64\], expected \[512, 64\]"):
        load_backbone(copy)


def test_truncated_shard(model, tmp_path):
    save_backbone(model, tmp_path, max_shard_bytes=200_000)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"{shard.name} .*truncated"):
        load_backbone(tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match=f"names {shard.name}, which is not there"):
        load_backbone(tmp_path)
