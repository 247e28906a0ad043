"""One function says what a name means on this machine, for every command: a directory, a cache root, ~, a shipped model."""

from __future__ import annotations

from pathlib import Path

import pytest

from llada_uni.cli.data import _folder
from llada_uni.errors import UserError
from llada_uni.hub.listing import Access
from llada_uni.hub.names import model_here
from llada_uni.hub.skeleton import looked_at
from llada_uni.tasks.find import open_model


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home directory with a model, and one in the form of the hub's cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    commit = "a" * 40
    for folder in (tmp_path / "mine", tmp_path / "models--org--name" / "snapshots" / commit):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text(commit)
    return tmp_path


def doors(name: str) -> list[Path]:
    """The directory that each part of the program takes a name for."""
    with looked_at(name, Access(local_files_only=True)) as (looked, _):
        return [model_here(name), open_model(name)[0], looked, _folder(Path(name))]


def test_every_door_means_the_same(home):
    cached = home / "models--org--name" / "snapshots" / ("a" * 40)
    for name, folder in {
        "~/mine": home / "mine", str(home / "mine"): home / "mine",
        "~/models--org--name": cached, str(home / "models--org--name"): cached,
    }.items():  # fmt: skip
        assert set(doors(name)) == {folder}
    assert len(set(doors("world"))) == 1 and doors("world")[0].name == "world"


@pytest.mark.parametrize("name", ["none", "~/none", "no/such/thing"])
def test_nothing_is_called_so(home, name):
    assert model_here(name) is None
    messages = set()
    for door in (open_model, lambda name: looked_at(name).__enter__(), lambda name: _folder(Path(name))):
        with pytest.raises(UserError, match="there is no model directory") as caught:
            door(name)
        messages.add(str(caught.value))
    assert len(messages) == 1
