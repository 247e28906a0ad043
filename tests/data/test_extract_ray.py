"""Extraction by Ray Data: two workers, one of which is killed, make the shards that one process makes."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from llada_uni.data.extract import Extraction, extract
from llada_uni.data.extract_ray import extract_on_ray
from llada_uni.errors import UserError
from tests.data.helpers import drawing, question, small_model, write_records


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"), golden)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("tokens-*.safetensors")}


def test_without_ray_the_extra_is_named(tmp_path, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"llada-uni\[ray\]"):
        extract_on_ray(Extraction("world:20:1", str(tmp_path), str(model)))


def kill_one_worker(out: Path, killed: list[int]) -> None:
    """Kills, with SIGKILL, the process of an actor as soon as the first shard is there."""
    deadline = time.monotonic() + 200
    while not list(out.glob("tokens-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes().decode(errors="replace")
                parents = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "ray::" in title and "ShardMaker" in title and f"MEND_TEST={out}" in parents:
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
                return


@pytest.mark.slow
def test_two_workers_one_killed_make_the_shards_of_one_process(tmp_path, model, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    job = Extraction("world:400:1", str(tmp_path / "alone"), str(model), shard_records=20)
    whole = extract(job)
    monkeypatch.setenv("MEND_TEST", str(tmp_path / "ray"))
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_worker, args=(tmp_path / "ray", killed), daemon=True)
    killer.start()
    calls = []
    other = dataclasses.replace(job, out=str(tmp_path / "ray"))
    manifest = extract_on_ray(other, workers=2, on_shard=lambda *numbers: calls.append(numbers))
    killer.join()
    assert killed and manifest == whole and contents(tmp_path / "ray") == contents(tmp_path / "alone")
    assert [done for done, _, _ in calls] == list(range(1, 21)) and {total for _, total, _ in calls} == {20}
    (tmp_path / "ray" / "tokens-00003.safetensors").unlink()
    assert extract_on_ray(other, workers=2) == whole  # goes on where shards are missing
    bad = write_records(tmp_path / "in", [drawing(), question(name="gone.png")])
    with pytest.raises(UserError, match=r"gone\.png"):
        extract_on_ray(Extraction(str(bad), str(tmp_path / "bad"), str(model)), workers=2)
