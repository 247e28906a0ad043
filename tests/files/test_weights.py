"""Reading and writing: clear words for every damage, and never half a file."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from llada_uni.errors import UserError
from llada_uni.files.weights import (
    WeightFiles,
    atomic_file,
    default_dtype,
    read_json,
    stream_into,
    write_json,
    write_weights,
)


@pytest.fixture
def linear(tmp_path):
    write_weights(tmp_path / "model.safetensors", {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, None)
    return tmp_path


def fill(folder, **options):
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    stream_into(module, WeightFiles(folder), "cpu", None, **options)
    return module


def test_streams_into_a_meta_module(linear):
    module = fill(linear)
    assert torch.equal(module(torch.ones(1, 3)), torch.full((1, 2), 3.0))


def test_default_dtype():
    assert default_dtype("cpu") == torch.float32
    assert default_dtype("cuda:1") == torch.bfloat16


@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_truncated_file(linear, keep):
    file = linear / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        UserError, match=r"model\.safetensors \(\d+ bytes\) is truncated or damaged"
    ) as caught:
        WeightFiles(linear)
    assert "\n" not in str(caught.value)


def test_file_of_something_else(linear):
    (linear / "model.safetensors").write_bytes(b"PK\x03\x04 and so on, not tensors" * 10)
    with pytest.raises(UserError, match="truncated or damaged"):
        WeightFiles(linear)


def test_missing_unknown_and_wrong_tensors(linear):
    file = linear / "model.safetensors"
    save_file({"weight": torch.ones(2, 3)}, file)
    with pytest.raises(UserError, match="lacks the tensor bias"):
        fill(linear)
    save_file({"weight": torch.ones(2, 3), "bias": torch.ones(2), "gain": torch.ones(2)}, file)
    with pytest.raises(UserError, match="has the unknown tensor gain"):
        fill(linear)
    save_file({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, file)
    with pytest.raises(UserError, match=r"the tensor weight has the shape \[3, 2\], expected \[2, 3\]"):
        fill(linear)


def test_errors_speak_of_the_files_names(linear):
    save_file({"w": torch.ones(3, 2), "b": torch.ones(2)}, linear / "model.safetensors")
    names = {"w": "weight", "b": "bias"}
    with pytest.raises(UserError, match=r"the tensor w has the shape"):
        fill(linear, rename=names.get)


def shards(folder, table):
    (folder / "model.safetensors").unlink(missing_ok=True)
    save_file({"weight": torch.ones(2, 3)}, folder / "a.safetensors")
    save_file({"bias": torch.zeros(2)}, folder / "b.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(table))


def test_shards(tmp_path):
    shards(tmp_path, {"weight_map": {"weight": "a.safetensors", "bias": "b.safetensors"}})
    assert set(WeightFiles(tmp_path)) == {"weight", "bias"}
    assert torch.equal(fill(tmp_path).bias, torch.zeros(2))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "lacks the table"),
        (
            {"weight_map": {"weight": "a.safetensors", "bias": "c.safetensors"}},
            "c.safetensors, which is not there",
        ),
        (
            {"weight_map": {"weight": "b.safetensors", "bias": "b.safetensors"}},
            "holds the tensor weight, but it does",
        ),
        ({"weight_map": {"weight": "../a.safetensors"}}, "outside its folder"),
    ],
)
def test_index_that_does_not_fit(tmp_path, table, words):
    shards(tmp_path, table)
    with pytest.raises(UserError, match=words):
        WeightFiles(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(UserError, match="there are no weights in"):
        WeightFiles(tmp_path)


def test_json(tmp_path):
    write_json(tmp_path / "a" / "c.json", {"x": [1, "é"]})
    assert read_json(tmp_path / "a" / "c.json") == {"x": [1, "é"]}
    for content in ("{", "[1]", "\xff"):
        (tmp_path / "d.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(UserError, match=r"d\.json"):
            read_json(tmp_path / "d.json")
    with pytest.raises(UserError, match="there is no file"):
        read_json(tmp_path / "e.json")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    file = tmp_path / "x.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(file) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    with atomic_file(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
