"""The table of parts: every file name that is read, in its order, and a clear line where the choice is open."""

from __future__ import annotations

import os

import pytest

from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE, DECODER, IMAGE_TOKENIZER, KNOWN, PARTS, VAE, check_links, find_weights

WITH_WEIGHTS = [part for part in PARTS if part.weights]


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("")


@pytest.mark.parametrize("part", WITH_WEIGHTS, ids=lambda part: part.name)
def test_every_name_is_read_and_the_first_wins(tmp_path, part):
    for name in [*reversed(part.weights)]:
        touch(tmp_path, name)
        assert find_weights(tmp_path, part.weights).name == name
        touch(tmp_path, f"{name}.index.json")
        assert find_weights(tmp_path, part.weights).name == f"{name}.index.json"


@pytest.mark.parametrize("name", ["pytorch_lora.safetensors", "x.safetensors"])
def test_the_only_file_is_read_whatever_its_name(tmp_path, name):
    touch(tmp_path, name, "config.json", "sigvq_embedding.pt")
    assert find_weights(tmp_path, IMAGE_TOKENIZER.weights).name == name


def test_the_only_index_is_read_whatever_its_name(tmp_path):
    touch(tmp_path, "a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors", "a.safetensors.index.json")
    assert find_weights(tmp_path, DECODER.weights).name == "a.safetensors.index.json"


def test_an_open_choice_is_refused_in_one_line(tmp_path):
    touch(tmp_path, *(f"{letter}.safetensors" for letter in "abcdef"))
    with pytest.raises(UserError, match=r"several weight files \(a.*, d\.safetensors and 2 more\); give .* model.safetensors"):
        find_weights(tmp_path, BACKBONE.weights)
    touch(tmp_path / "shards", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    with pytest.raises(UserError, match=r"without their index; fetch model\.safetensors\.index\.json"):
        find_weights(tmp_path / "shards", BACKBONE.weights)
    with pytest.raises(UserError, match="there are no weights in"):
        find_weights(tmp_path / "none", VAE.weights)


def test_files_of_a_part(tmp_path):
    touch(tmp_path, "config.json", "model.safetensors", "README.md", "modeling.py", "tokenizer.json")
    touch(tmp_path / "decoder", "decoder_model.safetensors")
    assert [str(file) for file in BACKBONE.files(tmp_path)] == ["config.json", "model.safetensors"]
    assert DECODER.files(tmp_path) == []
    touch(tmp_path / "decoder", "config.json")
    assert [file.name for file in DECODER.files(tmp_path)] == ["config.json", "decoder_model.safetensors"]
    assert not any(pattern.endswith(".py") for part in PARTS for pattern in part.patterns)


def test_what_makes_a_model_directory():
    assert set(KNOWN) == {"config.json", "backbone", "tokenizer.json", "image_tokenizer", "decoder", "decoder-turbo", "vae"}


def test_links_out_of_the_directory_are_refused_where_files_are_copied(tmp_path):
    touch(tmp_path, "secret")
    touch(tmp_path / "model", "config.json")
    os.symlink(tmp_path / "secret", tmp_path / "model" / "model.safetensors")
    with pytest.raises(UserError, match="is a link that leads out of the model directory; put the file itself there"):
        check_links(tmp_path / "model")
    cache = tmp_path / "models--a--b"
    touch(cache / "blobs", "123")
    touch(cache / "snapshots" / "main", "config.json")
    os.symlink("../../blobs/123", cache / "snapshots" / "main" / "model.safetensors")
    check_links(cache / "snapshots" / "main")
