"""`pull --quantization`: what `quantize` makes of the whole, on a disk that never holds the whole."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_uni.backbone.model import Backbone
from llada_uni.backbone.quantized import scheme_of
from llada_uni.checkpoint.load import load_backbone, save_backbone
from llada_uni.checkpoint.quantize import quantize
from llada_uni.files.weights import WeightFiles, write_json
from tests.backbone.helpers import small_config
from tests.checkpoint.test_fp8 import make
from tests.hub.conftest import ROOT, copy, environment, same_files, shard
from tests.hub.server import Fault

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny32(published, tmp_path_factory) -> Path:
    """The published directory with a backbone whose experts are wide enough for int4."""
    folder = copy(published, tmp_path_factory.mktemp("wide") / "tiny")
    for file in folder.glob("model*"):
        file.unlink()
    config = small_config(
        vocab_size=544, image_token_offset=480, hidden_size=64, moe_intermediate_size=64, num_hidden_layers=5, num_experts=32,
        pad_token_id=3,
    )  # fmt: skip
    save_backbone(Backbone(config, generator=torch.Generator().manual_seed(5)), folder)
    shard(folder, 350_000)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    weights = WeightFiles(folder)
    return {name: weights.tensor(name) for name in weights}


def equal(one: Path, other: Path) -> bool:
    mine, theirs = tensors(one), tensors(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def allocated(folder: Path) -> int:
    """Bytes on the disk below a folder; holes in files take none."""
    total = 0
    for at, _, names in os.walk(folder):  # which passes over what goes meanwhile
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(at, name)).st_blocks * 512
    return total


@pytest.fixture
def wide(hub, tiny32) -> Path:
    hub.put("org/wide", tiny32)
    return tiny32


@pytest.mark.parametrize("format", ["int4", pytest.param("int8", marks=SLOW), pytest.param("float8", marks=SLOW)])
def test_it_is_what_quantize_makes_of_the_whole(format, client, wide, tmp_path):
    answer = client.command("pull", "org/wide", "--quantization", format, "--to", tmp_path / "small")
    assert answer.code == 0, answer.err
    quantize(wide, tmp_path / "whole", format)
    assert equal(tmp_path / "small", tmp_path / "whole")
    assert scheme_of(load_backbone(tmp_path / "small")).format == format
    assert same_files(tmp_path / "small", tmp_path / "whole", ".safetensors", ".index.json")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    draw = ("generate", "a cat", "--decoder", "none", "--seed", 1, "--device", "cpu")
    for name in ("small", "whole"):
        assert client.command(*draw, "-m", tmp_path / name, "-o", tmp_path / f"{name}.json").code == 0
    assert (tmp_path / "small.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


SMALL = """
from pathlib import Path
from llada_uni.hub.pull_quantized import pull_quantized
pull_quantized("org/wide", Path({!r}), "int4", ["backbone"], max_shard_bytes={})
"""


def test_the_disk_holds_the_result_and_two_shards_at_the_most(client, hub, wide, tmp_path, record_property):
    shards = {file.name: file.stat().st_size for file in wide.glob("model-*.safetensors")}
    assert len(shards) >= 8
    hub.rate = 8_000_000  # slow enough to be watched
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            most[0] = max(most[0], allocated(tmp_path))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answer = client.python(SMALL.format(str(tmp_path / "out" / "small"), 100_000))
    finally:
        ended.set()
        watcher.join()
    assert answer.code == 0, answer.err
    result = allocated(tmp_path / "out" / "small")
    whole, largest = sum(shards.values()), max(shards.values())
    record_property("disk", f"result {result}, largest shard {largest}, all shards {whole}, peak {most[0]}")
    print(f"result {result}, largest shard {largest}, all shards {whole}, peak {most[0]}")
    headers = 20_000 * len(shards)  # of the skeleton, with what a block of the disk wastes
    assert most[0] <= result + 2 * largest + headers + 100_000
    assert most[0] < whole, "less than the model as it is published"


def test_interrupted_it_goes_on_with_the_first_file_that_is_missing(client, hub, wide, tmp_path):
    names = sorted(file.name for file in wide.glob("model-*.safetensors"))
    hub.faults = [Fault(f"cdn/{hub.models['org/wide'].branches['main']}/{names[5]}", status=500, whole=True)]
    answer = client.python(SMALL.format(str(tmp_path / "small"), 100_000))
    assert answer.code == 2 and "the hub failed (500)" in answer.line
    assert not (tmp_path / "small").exists()
    done = {file.name: file.stat().st_mtime_ns for file in (tmp_path / ".small.pull").glob("model-*.safetensors")}
    assert len(done) >= 3
    hub.clear()
    assert client.python(SMALL.format(str(tmp_path / "small"), 100_000)).code == 0
    assert {name: os.stat(tmp_path / "small" / name).st_mtime_ns for name in done} == done, "what was made is not made again"
    again = [request for request in hub.asked(names[0]) if request.sent and not request.range]
    assert not again, "nor is what it was made of fetched"
    quantize(wide, tmp_path / "whole", "int4")
    assert equal(tmp_path / "small", tmp_path / "whole")


@SLOW
def test_another_revision_or_format_is_begun_again(client, hub, wide, tmp_path):
    names = sorted(file.name for file in wide.glob("model-*.safetensors"))
    hub.faults = [Fault(names[5], status=500, whole=True)]
    assert client.python(SMALL.format(str(tmp_path / "small"), 100_000)).code == 2
    hub.clear()
    answer = client.command("pull", "org/wide", "--quantization", "int8", "--to", tmp_path / "small")
    assert answer.code == 0 and "is of another revision or format: it is begun again" in answer.err
    quantize(wide, tmp_path / "whole", "int8")
    assert equal(tmp_path / "small", tmp_path / "whole")


def test_once_complete_it_is_left_alone(client, hub, wide, tmp_path):
    command = ("pull", "org/wide", "--quantization", "int8", "--to", tmp_path / "small")
    assert client.command(*command).code == 0
    hub.log.clear()
    answer = client.command(*command)
    assert answer.code == 0 and "is there and complete" in answer.err and not hub.asked("/resolve/")
    assert client.command("pull", "org/wide", "--to", tmp_path / "plain").code == 0
    answer = client.command("pull", "org/wide", "--quantization", "int8", "--to", tmp_path / "plain")
    assert answer.code == 2 and "as it is published, and is left so; name another directory" in answer.line


def test_mistakes(client, hub, wide, tmp_path):
    def line(*more):
        answer = client.command("pull", "org/wide", "--to", tmp_path / "x", *more)
        assert answer.code == 2 and "Traceback" not in answer.err
        return answer.line

    assert "unknown quantization 'int3'; allowed: int8, int4, float8" in line("--quantization", "int3")
    assert "take backbone among the parts" in line("--quantization", "int8", "--parts", "vae")
    quantize(wide, tmp_path / "done", "int8")
    hub.put("org/done", tmp_path / "done")
    answer = client.command("pull", "org/done", "--quantization", "int4", "--to", tmp_path / "x")
    assert "org/done is quantized already (int8); pull it without --quantization" in answer.line
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["done"], "nothing is left behind"


@SLOW
def test_float8_whose_scales_lie_in_another_shard(client, hub, golden, tmp_path):
    """As others store it: the weights of the experts in one file, what they are multiplied by in the next."""
    fp8, _ = make(golden, tmp_path, "released blocks")
    stored = load_file(fp8 / "model.safetensors")
    (fp8 / "model.safetensors").unlink()
    names = {False: "model-00001-of-00002.safetensors", True: "model-00002-of-00002.safetensors"}
    where = {name: names[name.endswith("_scale_inv")] for name in stored}
    for file in names.values():
        save_file({name: stored[name] for name in stored if where[name] == file}, fp8 / file)
    write_json(fp8 / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    hub.put("org/fp8", fp8)
    answer = client.command("pull", "org/fp8", "--quantization", "int8", "--to", tmp_path / "small")
    assert answer.code == 0, answer.err
    quantize(fp8, tmp_path / "whole", "int8")
    assert equal(tmp_path / "small", tmp_path / "whole")


@SLOW
def test_killed_in_the_middle_of_a_shard_it_goes_on(hub, wide, tmp_path):
    source, home = SMALL.format(str(tmp_path / "small"), 100_000), environment(hub, tmp_path / "home")
    hub.rate = 400_000
    first = subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, env=home, stderr=subprocess.DEVNULL)
    work, end = tmp_path / ".small.pull", time.monotonic() + 120
    while len(list(work.glob("model-*.safetensors"))) < 4:
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    first.kill()
    first.wait()
    done = {file.name: file.stat().st_mtime_ns for file in work.glob("model-*.safetensors")}
    hub.rate = None
    subprocess.run([sys.executable, "-c", source], cwd=ROOT, env=home, check=True, stderr=subprocess.DEVNULL)
    assert {name: os.stat(tmp_path / "small" / name).st_mtime_ns for name in done} == done
    assert not list((tmp_path / "small").glob(".*.tmp")) and not work.exists()
    for file in wide.glob("model-*.safetensors"):
        whole = [request for request in hub.asked("/cdn/") if file.name in request.path and not _header(request)]
        assert sum(request.sent for request in whole) <= 2 * file.stat().st_size and len(whole) <= 2
    quantize(wide, tmp_path / "whole", "int4")
    assert equal(tmp_path / "small", tmp_path / "whole")


def _header(request) -> bool:
    return (request.range or "").startswith("bytes=0-")
