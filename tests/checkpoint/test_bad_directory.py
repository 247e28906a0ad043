"""A model directory with something wrong: one line that says what to do, nothing written, nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_uni.cli import main
from tests.published_model import fingerprint, make_published_model


@pytest.fixture(scope="module")
def sound(tmp_path_factory, golden):
    return make_published_model(tmp_path_factory.mktemp("sound") / "model", golden)


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "model"))


def shard(folder, number=3):
    return folder / f"model-{number:05}-of-00013.safetensors"


def change(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def truncate(folder):
    shard(folder).write_bytes(shard(folder).read_bytes()[:-100])


def half_a_download(folder):
    shard(folder).unlink()


def no_index(folder):
    (folder / "model.safetensors.index.json").unlink()


def shard_with_other_tensors(folder):
    save_file({f"{name}.old": tensor for name, tensor in load_file(shard(folder)).items()}, shard(folder))


def shard_with_more_tensors(folder):
    save_file({**load_file(shard(folder)), "model.extra.weight": torch.ones(2)}, shard(folder))


def shard_of_other_sizes(folder):
    save_file({name: torch.cat([tensor, tensor]) for name, tensor in load_file(shard(folder)).items()}, shard(folder))


def other_architecture(folder):
    change(folder / "config.json", model_type="llama")


def other_router(folder):
    change(folder / "config.json", moe_router_enable_expert_bias=False)


def other_rope(folder):
    change(folder / "config.json", rope_parameters={"rope_type": "yarn", "factor": 4})


def tokenizer_of_another_model(folder):
    change(folder / "config.json", eos_token_id=7)


def tokenizer_too_large(folder):
    change(folder / "config.json", image_token_offset=100)


def tokenizer_without(name):
    def remove(folder):
        file = folder / "tokenizer.json"
        file.write_text(file.read_text().replace(json.dumps(name), json.dumps("<|other|>")))

    return remove


def several_files(folder):
    part = folder / "decoder-turbo"
    shutil.copyfile(part / "decoder_model.safetensors", part / "a.safetensors")
    (part / "decoder_model.safetensors").rename(part / "b.safetensors")


BROKEN = {
    "truncated shard": (truncate, r"model-00003-of-00013\.safetensors \(\d+ bytes\) is truncated .*; fetch it again"),
    "half a download": (half_a_download, r"names model-00003-of-00013\.safetensors, which is not there; fetch that file"),
    "no index": (no_index, r"has shards \(.*\) without their index; fetch model\.safetensors\.index\.json"),
    "shard with other tensors": (shard_with_other_tensors, "holds the tensor .*, but it does not; .* fetch both again"),
    "shard with more tensors": (shard_with_more_tensors, "model.extra.weight, which .* does not know; .* fetch both"),
    "shard of other sizes": (shard_of_other_sizes, r"has the shape .*, expected .*of one revision"),
    "another architecture": (other_architecture, "describes a model of type 'llama'; allowed: llada2_moe"),
    "another router": (other_router, "moe_router_enable_expert_bias is False; allowed: True"),
    "another kind of positions": (other_rope, "rope_type 'yarn'; allowed: 'default'"),
    "tokenizer of another model": (tokenizer_of_another_model, r"eos_token_id is 7 in config\.json: .* of different models"),
    "tokenizer too large": (tokenizer_too_large, r"image codes begin at 100 in config\.json: they are of different models"),
    "no image token": (tokenizer_without("<|image|>"), r"no control token <\|image\|>: take the tokenizer\.json of this model"),
    "no mask": (tokenizer_without("<|mask|>"), r"no control token <\|mask\|>"),
    "several files": (several_files, r"decoder-turbo has several weight files .*; give the one to be read the name model"),
}
SIZE = ["--height", "16", "--width", "16"]
DRAW = ["a cat", "--image-steps", "1", "--decoder", "turbo", "--decoder-steps", "1", "--block-length", "8", *SIZE]


def one_line(capsys, *arguments):
    """What a command that is refused says; it is one line, and the exit code is 2."""
    code = main(list(arguments))
    shown = capsys.readouterr()
    lines = shown.err.strip().splitlines()
    assert code == 2 and len(lines) == 1 and "Traceback" not in shown.err, shown
    return lines[0]


@pytest.mark.parametrize("name", BROKEN)
def test_drawing_says_what_to_do(folder, capsys, tmp_path, name):
    harm, words = BROKEN[name]
    harm(folder)
    before = fingerprint(folder)
    line = one_line(capsys, "generate", *DRAW, "-o", str(tmp_path / "x.png"), "-m", str(folder))
    assert re.search(words, line), line
    assert not (tmp_path / "x.png").exists() and fingerprint(folder) == before


@pytest.mark.parametrize(
    "command",
    [("convert", "OUT"), ("quantize", "OUT", "--format", "int8"), ("export", "OUT")],
    ids=lambda command: command[0],
)
def test_a_link_out_of_the_directory_is_never_copied(folder, tmp_path, capsys, command):
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": 1}')
    (folder / "tokenizer_config.json").unlink()
    os.symlink(secret, folder / "tokenizer_config.json")
    places = [str(folder), str(tmp_path / "out")]
    if command[0] == "export":
        places.reverse()
    line = one_line(capsys, command[0], *places, *command[2:])
    assert "tokenizer_config.json is a link that leads out of the model directory; put the file itself there" in line
    assert not (tmp_path / "out").exists()


def test_info_goes_on_with_the_others(folder, capsys):
    truncate(folder)
    several_files(folder)
    assert main(["info", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [part["name"] for part in found["broken"]] == ["backbone", "decoder-turbo"]
    assert [part["name"] for part in found["parts"]] == ["image_tokenizer", "decoder", "vae", "code features"]
