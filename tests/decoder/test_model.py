"""The decoder's files: names, configs, saving and loading, tables that grow."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_uni.decoder.model import (
    fit_positions,
    load_transformer,
    load_vae,
    save_transformer,
    save_vae,
    to_module_name,
    to_released_name,
    vae_factor,
)
from llada_uni.errors import UserError


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_names_go_both_ways(golden):
    names = list(load_file(golden / "decoder" / "model.safetensors"))
    assert any(name.startswith("semantic_embedder.") for name in names)
    assert [to_released_name(to_module_name(name)) for name in names] == names
    assert not any(to_module_name(name).startswith("semantic_embedder.") for name in names)


def test_transformer_round_trip(golden, tmp_path):
    model = load_transformer(golden / "decoder")
    save_transformer(model, tmp_path)
    assert same(
        load_file(golden / "decoder" / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    )
    before = json.loads((golden / "decoder" / "config.json").read_text())
    after = json.loads((tmp_path / "config.json").read_text())
    assert before.items() <= after.items()
    again = load_transformer(tmp_path)
    assert same(model.state_dict(), again.state_dict())
    assert not again.training and not any(p.requires_grad for p in again.parameters())


def test_vae_round_trip(golden, tmp_path):
    vae = load_vae(golden / "vae")
    save_vae(vae, tmp_path)
    name = "diffusion_pytorch_model.safetensors"
    assert same(load_file(golden / "vae" / name), load_file(tmp_path / name))
    again = load_vae(tmp_path)
    assert vae_factor(again) == 2
    assert (again.config.scaling_factor, again.config.shift_factor) == (0.3611, 0.1159)
    assert list(again.config.block_out_channels) == [16, 32]


def test_width_of_the_condition_comes_from_the_weights(golden, tmp_path):
    place = shutil.copytree(golden / "decoder", tmp_path / "decoder")
    config = json.loads((place / "config.json").read_text())
    config["cap_feat_dim"] = 2560
    (place / "config.json").write_text(json.dumps(config))
    assert load_transformer(place).config.cap_feat_dim == 32


def test_positions_grow_without_changing_results(golden):
    model = load_transformer(golden / "decoder")
    state = [torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))]
    features = [torch.randn(16, 32, generator=torch.Generator().manual_seed(1))]

    def run():
        return model(state, torch.tensor([0.5]), features, return_dict=False)[0][0]

    with torch.no_grad():
        before = run()
        fit_positions(model, 16, 1, 4, 4)
        assert model.rope_embedder.axes_lens == [512, 64, 64]
        fit_positions(model, 5000, 1, 100, 4)
        assert model.rope_embedder.axes_lens == [5026, 100, 64]
        assert torch.equal(before, run())


def test_refuses_broken_directories(golden, tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_transformer(tmp_path)
    place = shutil.copytree(golden / "decoder", tmp_path / "decoder")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "n_heads": 5}))
    with pytest.raises(UserError, match="describes no possible decoder"):
        load_transformer(place)
    del config["n_layers"]
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match='lacks the field "n_layers"'):
        load_transformer(place)
    (place / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_transformer(place)

    place = shutil.copytree(golden / "vae", tmp_path / "vae")
    weights = place / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_in.bias"] = tensors["decoder.conv_in.bias"][:3].clone()
    save_file(tensors, weights)
    with pytest.raises(UserError, match=r"decoder.conv_in.bias has the shape \[3\], expected \[32\]"):
        load_vae(place)
    weights.unlink()
    with pytest.raises(UserError, match="there are no weights"):
        load_vae(place)
