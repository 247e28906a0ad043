"""What a directory holds, from headers alone."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llada_uni.checkpoint.info import model_info
from llada_uni.checkpoint.load import convert
from llada_uni.cli import main
from llada_uni.errors import UserError


def test_parts_and_parameters(golden):
    info = model_info(golden)
    parts = {part.name: part for part in info.parts}
    assert list(parts) == ["backbone", "image_tokenizer", "decoder", "decoder-turbo", "vae", "code features"]
    assert info.missing == ()
    tensors = load_file(golden / "backbone" / "model.safetensors")
    backbone = parts["backbone"]
    assert backbone.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert backbone.dtypes == {"float32": backbone.parameters}
    assert backbone.layout == "released"
    idle = 2 * (16 - 4) * 3 * 32 * 64  # layers, experts not chosen, matrices of inner x width
    assert backbone.active == backbone.parameters - idle
    state = torch.load(golden / "image_tokenizer" / "sigvq_embedding.pt", weights_only=True)
    assert parts["code features"].parameters == sum(tensor.numel() for tensor in state.values())
    assert info.memory()["bfloat16"] * 2 == info.memory()["float32"] == info.parameters * 4
    assert json.loads(json.dumps(info.to_json()))["parameters"] == info.parameters


def test_layout_does_not_change_the_numbers(golden, tmp_path):
    convert(golden, tmp_path / "ours", dtype=torch.bfloat16)
    before, after = (model_info(folder).parts[0] for folder in (golden, tmp_path / "ours"))
    assert (after.parameters, after.active) == (before.parameters, before.active)
    assert after.layout == "stacked"
    assert after.tensors < before.tensors
    assert set(after.dtypes) == {"bfloat16", "float32"}
    assert before.bytes_stored / 2 < after.bytes_stored < before.bytes_stored


def test_some_parts_only(golden, tmp_path):
    shutil.copytree(golden / "vae", tmp_path / "vae")
    info = model_info(tmp_path)
    assert [part.name for part in info.parts] == ["vae"]
    assert info.missing == ("backbone", "image_tokenizer", "decoder", "decoder-turbo", "code features")


def test_refuses(golden, tmp_path):
    with pytest.raises(UserError, match="there is no model directory"):
        model_info(tmp_path / "none")
    with pytest.raises(UserError, match="holds no part of a model"):
        model_info(tmp_path)


def test_a_broken_part_is_reported_beside_the_others(golden, tmp_path, capsys):
    for name in ("vae", "decoder", "image_tokenizer"):
        shutil.copytree(golden / name, tmp_path / name)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    (tmp_path / "image_tokenizer" / "sigvq_embedding.pt").write_bytes(b"no tensors")
    (tmp_path / "tokenizer.json").write_text("{")
    info = model_info(tmp_path)
    assert [part.name for part in info.parts] == ["image_tokenizer", "decoder"]
    assert [part.name for part in info.broken] == ["vae", "code features", "text tokenizer"]
    assert "truncated" in info.broken[0].reason and all("\n" not in part.reason for part in info.broken)
    assert info.to_json()["broken"][0]["name"] == "vae"
    assert info.missing == ("backbone", "decoder-turbo")
    assert main(["info", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "broken: vae: " in out and "decoder" in out
