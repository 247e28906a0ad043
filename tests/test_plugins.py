"""Plug-ins: the world's own, one of another package by its entry point, and what goes wrong with them."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from llada_uni import plugins
from llada_uni.errors import UserError


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a module of another package and installs it as a plug-in."""

    def install(text: str, name: str = "other_plugin") -> None:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint(name, name, group)])
        plugins._plugins.cache_clear()
        plugins.table.cache_clear()

    yield install
    sys.modules.pop("other_plugin", None)
    plugins._plugins.cache_clear()
    plugins.table.cache_clear()


def test_every_target_of_the_own_plugins_is_there():
    for kind in plugins.KINDS:
        for name in plugins.table(kind):
            assert plugins.load(kind, name) is not None
    assert plugins.load("stages", "patch_tokenizer").__name__ == "PatchTokenizerOptions"


def test_another_package_adds_by_entry_point(other):
    other('STAGES = {"mine": "other_plugin:Options"}\nclass Options: pass\n')
    assert plugins.load("stages", "mine").__name__ == "Options"
    assert "patch_tokenizer" in plugins.table("stages")


def test_unknown_names_and_kinds_say_what_is_allowed():
    with pytest.raises(UserError, match=r"'nothing' of stages; allowed: .*patch_tokenizer"):
        plugins.load("stages", "nothing")
    with pytest.raises(UserError, match=r"unknown kind of plug-in 'thing'; allowed: stages"):
        plugins.table("thing")


def test_one_name_twice_is_refused(other):
    other('STAGES = {"patch_tokenizer": "other_plugin:Options"}\n')
    with pytest.raises(UserError, match=r"two plug-ins add stages 'patch_tokenizer'"):
        plugins.table("stages")


def test_a_plugin_that_cannot_be_imported_is_named(other):
    other("import no_such_module_anywhere\n")
    with pytest.raises(UserError, match=r"the plug-in other_plugin cannot be imported .*no_such_module"):
        plugins.table("stages")
