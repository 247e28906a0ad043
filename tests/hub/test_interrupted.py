"""`pull`, killed in the middle and run again: nothing is fetched twice but what the client held in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from tests.hub.conftest import ROOT, environment, same_files
from tests.hub.server import Hub, files_below, serving

MIB = 2**20
SIZES = {"model-00001-of-00002": 40, "model-00002-of-00002": 30}  # MiB


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A directory whose shards are a few of the client's chunks large."""
    folder = tmp_path / "large"
    (folder / "vae").mkdir(parents=True)
    for seed, (name, size) in enumerate(SIZES.items()):
        save_file({"x": np.random.default_rng(seed).integers(0, 255, size * MIB, np.uint8)}, folder / f"{name}.safetensors")
    for name in ("config.json", "vae/config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def start(hub: Hub, tmp_path: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "llada_uni", "pull", "org/large", *more]
    return subprocess.Popen(command, cwd=ROOT, env=environment(hub, tmp_path / "home"), stderr=subprocess.PIPE, text=True)


def wait_until(condition, process: subprocess.Popen, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("into", ["directory", "cache"])
def test_killed_and_run_again_it_fetches_at_most_one_chunk_of_a_file_twice(into, large, tmp_path):
    with serving(Hub()) as hub:
        hub.put("org/large", large)
        hub.rate = 12 * MIB
        more = ["--to", str(tmp_path / "out")] if into == "directory" else []
        first = start(hub, tmp_path, *more)
        wait_until(lambda: all(hub.sent(name) > 15 * MIB for name in SIZES), first)
        first.send_signal(signal.SIGKILL)
        first.wait()
        partials = sorted(path.stat().st_size for path in tmp_path.rglob("*.incomplete"))
        assert len(partials) == 2 and min(partials) >= constants.DOWNLOAD_CHUNK_SIZE, "what was fetched stays"
        hub.rate = None
        second = start(hub, tmp_path, *more)
        assert second.wait(120) == 0, second.stderr.read()
        resumed = [request.range for request in hub.asked("/cdn/") if request.range]
        starts = sorted(int(asked.split("=")[1].split("-")[0]) for asked in resumed)
        assert starts == partials, "it goes on from exactly there"
        for name, size in SIZES.items():
            twice = hub.sent(name) - (large / f"{name}.safetensors").stat().st_size
            assert 0 <= twice <= constants.DOWNLOAD_CHUNK_SIZE + MIB, f"{name} of {size} MiB: {twice} bytes twice"
    root = tmp_path / "home" / "hub" / "models--org--large" / "snapshots"
    folder = tmp_path / "out" if into == "directory" else next(root.iterdir())
    assert same_files(folder, large)
    assert not [name for name in files_below(tmp_path) if name.endswith(".incomplete")]


@pytest.mark.slow
def test_interrupted_by_hand_it_ends_at_once_and_keeps_what_it_has(large, tmp_path):
    with serving(Hub()) as hub:
        hub.put("org/large", large)
        hub.rate = 12 * MIB
        first = start(hub, tmp_path, "--to", str(tmp_path / "out"))
        wait_until(lambda: all(hub.sent(name) > 12 * MIB for name in SIZES), first)
        first.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert first.wait(30) == 130
        assert time.monotonic() - began < 15
        assert first.stderr.read().strip().splitlines()[-1] == "llada-uni: interrupted"
        assert len(list((tmp_path / "out").rglob("*.incomplete"))) == 2


@pytest.mark.slow
def test_two_at_a_time_wait_for_each_other(large, tmp_path):
    with serving(Hub()) as hub:
        hub.put("org/large", large)
        both = [start(hub, tmp_path) for _ in range(2)]
        for one in both:
            assert one.wait(120) == 0, one.stderr.read()
        for name in SIZES:
            assert hub.sent(name) == (large / f"{name}.safetensors").stat().st_size, "once in all"
