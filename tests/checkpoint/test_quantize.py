"""Quantized directories: what is written, that it opens and works, what it costs, and that nothing half is left."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from benchmarks.quantized_16b import write_random_model
from llada_uni.backbone.quantized import scheme_of
from llada_uni.backbone.quantized_formats import make_scheme
from llada_uni.checkpoint import quantize as module
from llada_uni.checkpoint.info import backbone_memory, model_info
from llada_uni.checkpoint.layout import places
from llada_uni.checkpoint.load import convert, load_backbone, open_weights, save_backbone
from llada_uni.checkpoint.quantize import quantize, stored_bytes
from llada_uni.cli import main
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.weights import WeightFiles
from llada_uni.model import UniModel
from tests.tiny_model import make_tiny_model

FORMATS = ("int8", "int4", "float8")
WORST = {"int8": 0.05, "int4": 0.4, "float8": 0.15}  # of the logits, relative; measured: 0.019, 0.26, 0.066


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)


@pytest.fixture(scope="module")
def made(tiny):
    """The tiny model in every format."""
    folders = {format: tiny.parent / format for format in FORMATS}
    for format, folder in folders.items():
        quantize(tiny, folder, format)
    return folders


def logits(model):
    ids = torch.arange(24)[None] * 7 % 400
    return model(ids)


def distance(found, truth):
    return ((found - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("format", FORMATS)
def test_opens_and_is_nearly_the_same(tiny, made, format):
    model = load_backbone(made[format])
    assert scheme_of(model) == make_scheme(format)
    assert not model.training
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    plain = load_backbone(tiny)
    assert distance(logits(model), logits(plain)) < WORST[format]
    names = {place.name for place in places(model.config) if not place.stacked}
    assert all(torch.equal(model.state_dict()[name], plain.state_dict()[name]) for name in names)


def test_whole_directory(tiny, made):
    """Other parts are there, large files as links; the config says what was done; `info` shows it."""
    names = {path.relative_to(tiny) for path in tiny.rglob("*") if path.is_file()}
    assert {path.relative_to(made["int4"]) for path in made["int4"].rglob("*") if path.is_file()} == names
    for name in names - {tiny.joinpath(n).relative_to(tiny) for n in ("config.json", "model.safetensors")}:
        mine, theirs = made["int4"] / name, tiny / name
        assert mine.read_bytes() == theirs.read_bytes()
        assert mine.samefile(theirs) == (theirs.stat().st_size >= 2**20)
    config = json.loads((made["int4"] / "config.json").read_text())
    assert config["quantization_config"] == make_scheme("int4").to_json()
    info = model_info(made["int4"])
    part, before = info.parts[0], model_info(tiny).parts[0]
    assert (part.quantization, part.layout) == ("int4", "stacked, int4")
    assert (part.parameters, part.active, part.memory) == (before.parameters, before.active, before.memory)
    assert part.bytes_stored < before.bytes_stored


def test_shards_have_an_index_and_progress_counts_experts(tiny, made, tmp_path):
    calls = []
    done = quantize(tiny, tmp_path / "new", "int4", max_shard_bytes=60_000, on_progress=lambda *call: calls.append(call))
    assert len(list((tmp_path / "new").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "new" / "model.safetensors.index.json").is_file()
    assert [call[0] for call in calls] == list(range(1, calls[-1][1] + 1))
    assert calls[-1][1] == 16 * 3  # experts and matrices of the one sparse layer
    weights = WeightFiles(tmp_path / "new")
    assert done.bytes_after == sum(weights.tensor(name).nbytes for name in weights)
    assert torch.equal(logits(load_backbone(tmp_path / "new")), logits(load_backbone(made["int4"])))


def test_stacked_source_gives_the_same(tiny, made, tmp_path):
    convert(tiny, tmp_path / "stacked", "stacked")
    quantize(tmp_path / "stacked", tmp_path / "new", "int8")
    first, second = WeightFiles(tmp_path / "new"), WeightFiles(made["int8"])
    assert set(first) == set(second)
    assert all(torch.equal(first.tensor(name), second.tensor(name)) for name in first)


@pytest.mark.parametrize("format", FORMATS)
def test_quantized_while_loading(tiny, made, format):
    """`quantization` gives the same network as the directory; and takes quantized experts back."""
    assert torch.equal(logits(load_backbone(tiny, quantization=format)), logits(load_backbone(made[format])))
    plain = load_backbone(made[format], quantization="plain")
    assert scheme_of(plain) is None
    assert distance(logits(load_backbone(made[format])), logits(plain)) < 0.02
    with pytest.raises(UserError, match="unknown quantization 'int3'; allowed: plain, int8, int4, float8"):
        load_backbone(tiny, quantization="int3")


def test_saved_again_and_converted_back(made, tmp_path):
    model = load_backbone(made["int4"])
    save_backbone(model, tmp_path / "again", max_shard_bytes=60_000)
    assert torch.equal(logits(load_backbone(tmp_path / "again")), logits(model))
    assert convert(made["int4"], tmp_path / "plain", "released") == "released"
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert torch.equal(logits(load_backbone(tmp_path / "plain")), logits(load_backbone(made["int4"], quantization="plain")))
    UniModel.from_pretrained(made["int4"]).save_pretrained(tmp_path / "whole")
    assert torch.equal(logits(load_backbone(tmp_path / "whole")), logits(model))
    with pytest.raises(UserError, match="has quantized experts; this needs plain ones"):
        open_weights(made["int4"], model.config)


@pytest.mark.parametrize("format", FORMATS)
def test_draws_and_answers(made, format, tmp_path, capsys):
    arguments = ["--model", str(made[format]), "--seed", "1", "--device", "cpu"]
    assert main(["generate", "a cat and a dog on green", "-o", str(tmp_path / "out.png"), *arguments]) == 0
    assert (tmp_path / "out.png").stat().st_size > 0
    model = UniModel.from_pretrained(made[format], device="cpu")
    first, second = (model.generate_image("a cat", seed=3, decoder="none").codes for _ in range(2))
    assert first == second
    capsys.readouterr()


def test_command(tiny, tmp_path, capsys):
    assert main(["quantize", str(tiny), str(tmp_path / "new"), "--format", "int8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["bytes_after"] < told["bytes_before"]) == ("int8", True)
    assert main(["quantize", str(tiny), str(tmp_path / "new")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_refuses(tiny, made, tmp_path):
    new = tmp_path / "new"
    for arguments, words in [
        ((tiny, new, "int3"), "unknown format 'int3'; allowed: int8, int4, float8"),
        ((tiny, new, "int4", 48), "the group is 48; allowed: 32, 64, 128, 256"),
        ((made["int8"], new, "int4"), r"is quantized already \(int8\)"),
        ((tiny, tiny / "inside", "int4"), "lies inside"),
        ((tmp_path / "none", new, "int4"), "there is no model directory"),
    ]:
        with pytest.raises(UserError, match=words):
            quantize(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_seen_before_anything_is_written(tiny, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 0.00 GB free, but 0.00 GB are needed; nothing was written"):
        quantize(tiny, tmp_path / "new", "int4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left (os error 28)")],
)
def test_a_disk_that_fills_up_leaves_nothing(tiny, tmp_path, monkeypatch, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("llada_uni.checkpoint.load.save_file", fail)
    with pytest.raises(UserError, match=r"is full .* nothing was written"):
        quantize(tiny, tmp_path / "new", "int4")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tiny, tmp_path):
    def stop(done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(tiny, tmp_path / "new", "int4", max_shard_bytes=60_000, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_damaged_quantized_directories(made, tmp_path):
    folder = shutil.copytree(made["int4"], tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    changed = config | {"quantization_config": make_scheme("int4", 32).to_json()}
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"gate_proj.scale has the shape .* expected"):
        load_backbone(folder)
    changed["quantization_config"]["format"] = "int5"
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="has the format 'int5'"):
        load_backbone(folder)


def test_bytes_of_the_released_size():
    memory = backbone_memory(BackboneConfig.released_16b())
    assert {kind: round(size / 1e9, 1) for kind, size in memory.items()} == {
        "float32": 65.3, "bfloat16": 32.6, "int8": 17.4, "int4": 10.2, "float8": 17.4,
    }  # fmt: skip
    assert stored_bytes(BackboneConfig.released_16b(), None) == memory["bfloat16"]


# --- memory ---

MEASURE = """
from functools import partial
import torch
from benchmarks.quantized_16b import peak_gib
from llada_uni.checkpoint.load import load_backbone
from llada_uni.checkpoint.quantize import quantize
torch.set_num_threads(1)
call = {call}
before = peak_gib()
call()
print((peak_gib() - before) * 2**30)
"""


def peak_rise(call: str) -> float:
    """Megabytes by which the resident memory of a fresh process rises during `call`, at most."""
    done = subprocess.run([sys.executable, "-c", MEASURE.format(call=call)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1]) / 1e6


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """330 MB of bfloat16, nearly all of it experts, in three sparse layers."""
    config = dataclasses.replace(
        BackboneConfig.released_16b(), hidden_size=512, moe_intermediate_size=512, num_experts=64,
        num_hidden_layers=4, vocab_size=4096, image_token_offset=2048, num_attention_heads=4, intermediate_size=512,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("large") / "plain"
    write_random_model(folder, config, max_shard_bytes=50 * 10**6)
    yield folder
    shutil.rmtree(folder.parent)


@pytest.mark.skipif(sys.platform != "linux", reason="measures through /proc")
def test_memory(large):
    """Measured rises: quantizing 110 MB with shards of 50 MB, of a source of 326; loading 1.09 of plain weights."""
    size = sum(file.stat().st_size for file in large.glob("*.safetensors")) / 1e6
    assert 300 < size < 340
    small = large.parent / "int4"
    rise = peak_rise(f"partial(quantize, {str(large)!r}, {str(small)!r}, 'int4', max_shard_bytes=50 * 10**6)")
    assert rise < 170  # a place mapped (34 MB), a shard twice (100 MB); not the 330 MB of the source
    assert peak_rise(f"partial(load_backbone, {str(large)!r}, 'cpu', torch.bfloat16)") < 1.25 * size
    in_int4 = sum(file.stat().st_size for file in small.glob("*.safetensors")) / 1e6
    assert in_int4 < 0.33 * size
    assert peak_rise(f"partial(load_backbone, {str(small)!r}, 'cpu', torch.bfloat16)") < 0.5 * in_int4  # only mapped yet
    run = f"lambda: load_backbone({str(small)!r}, 'cpu', torch.bfloat16)(torch.arange(256)[None])"
    assert peak_rise(run) < 1.25 * in_int4 + 60
    load = f"partial(load_backbone, {str(large)!r}, 'cpu', torch.bfloat16, quantization='int4')"
    assert peak_rise(load) < 1.25 * in_int4 + 60
