"""What the tests of the hub share: the server, a published model on it, and a process whose client knows only that server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from llada_uni.checkpoint.load import load_backbone, save_backbone
from tests.hub.server import Hub, files_below, serving
from tests.tiny_model import make_tiny_model

ID = "org/tiny"
ROOT = Path(__file__).parents[2]


@dataclass
class Answer:
    """What a command gave back. value: what the Python of `Client.python` left in the variable `value`."""

    code: int
    out: str
    err: str
    value: Any = None

    @property
    def line(self) -> str:
        """The complaint: the last line on stderr."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """That of a process whose client knows only this hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, **more, "PYTHONPATH": str(ROOT)}


@dataclass
class Client:
    """A worker process. home: where its cache is (a test may change it)."""

    process: subprocess.Popen
    home: Path
    token: str | None = None
    offline: bool = False
    environment: dict[str, str | None] = field(default_factory=dict)

    def ask(self, **job: Any) -> Answer:
        environment = {"HF_TOKEN": self.token, **self.environment}
        job = {"environment": environment, "home": str(self.home), "offline": self.offline, **job}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Answer(**json.loads(self.process.stdout.readline()))

    def command(self, *arguments: Any) -> Answer:
        """A command line of ours."""
        return self.ask(command=[str(argument) for argument in arguments])

    def python(self, source: str) -> Answer:
        """Some Python; what it leaves in the variable `value` comes back."""
        return self.ask(python=source)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """A directory as it is published: shards with an index, other names of the weight files, Python files, a README."""
    folder = make_tiny_model(tmp_path_factory.mktemp("published") / "tiny", golden)
    shard(folder, 120_000)
    for part, name in (("image_tokenizer", "image_tokenizer"), ("decoder", "decoder_model")):
        (folder / part / "model.safetensors").rename(folder / part / f"{name}.safetensors")
    (folder / "modeling_tiny.py").write_text("raise SystemExit('code of the model ran')\n")
    (folder / "README.md").write_text("A model.\n")
    (folder / "tokenizer_config.json").write_text("{}\n")
    return folder


def shard(folder: Path, size: int, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes the backbone of `folder` again, in shards of at most `size` bytes."""
    save_backbone(load_backbone(folder), folder, dtype=dtype, max_shard_bytes=size)
    assert (folder / "model.safetensors.index.json").is_file()


@pytest.fixture(scope="session")
def running_hub(published: Path) -> Iterator[Hub]:
    with serving(Hub()) as hub:
        hub.put(ID, published)
        yield hub


@pytest.fixture(scope="session")
def worker(running_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.worker"],
        cwd=ROOT, env=environment(running_hub, home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield Client(process, home)
    process.stdin.close()
    process.wait(20)


@pytest.fixture
def hub(running_hub: Hub) -> Iterator[Hub]:
    """The server, in good health; what a test broke is mended afterwards."""
    models = dict(running_hub.models)
    running_hub.clear()
    yield running_hub
    running_hub.clear()
    running_hub.models = models
    for model in models.values():
        model.token, model.gated = None, False


@pytest.fixture
def client(hub: Hub, worker: Client, tmp_path: Path) -> Client:
    """A client with an empty cache."""
    return Client(worker.process, tmp_path / "home")


def same_files(folder: Path, published: Path, *but: str) -> bool:
    """Whether `folder` holds the published files, byte for byte, and none of those that are never fetched. but: endings of
    files that are not looked at.
    """
    wanted = {name: path for name, path in files_below(published).items() if not name.endswith((".py", ".md", *but))}
    found = {name: path for name, path in files_below(folder).items() if not name.startswith(".llada-uni-pull")}
    found = {name: path for name, path in found.items() if not name.endswith(but)}
    return set(found) == set(wanted) and all(found[name].read_bytes() == wanted[name].read_bytes() for name in wanted)


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))
