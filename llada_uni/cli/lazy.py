"""A group of commands that imports a command's module when that command is called; the list of commands needs none of them.

A table of names to "module:function" -> stubs with the first lines of the functions' docstrings, read from
the source -> at a call the function itself, imported, its options built by typer. "data check" is `check` in the group `data`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Of every typer application here."""


class Stub(TyperCommand):
    """A command that is listed but not there yet."""

    def __init__(self, name: str, text: str, load: Callable[[], Any]) -> None:
        super().__init__(name=name, help=text, rich_markup_mode=SETTINGS["rich_markup_mode"])
        self.load = load


class LazyGroup(TyperGroup):
    """Lists stubs, and calls what they stand for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Stub) else command, rest

    def find(self, *names: str) -> Any:
        """The command of that name, or the one of a group in it, loaded."""
        command: Any = self.commands[names[0]]
        loaded = command.load() if isinstance(command, Stub) else command
        return loaded.find(*names[1:]) if names[1:] else loaded


def make_group(app: typer.Typer, table: Mapping[str, str], groups: Mapping[str, str]) -> LazyGroup:
    """The group of a typer application with cls=LazyGroup. table: names to "module:function", of one word, or of two for a
    command of one of `groups` (name to help)."""
    group: LazyGroup = typer.main.get_group(app)  # type: ignore[assignment]  # as `cls` says
    for name, target in table.items():
        head, _, inner = name.partition(" ")
        if not inner:
            group.commands[head] = Stub(head, _docstring(target), partial(_load, name, target))
        elif head not in group.commands:
            part = {key.split(" ", 1)[1]: value for key, value in table.items() if key.startswith(f"{head} ")}
            group.commands[head] = Stub(head, groups[head], partial(_load_group, head, groups[head], part))
    return group


def _load(name: str, target: str) -> Any:
    module, _, function = target.partition(":")
    app = typer.Typer(**SETTINGS)
    app.command(name)(getattr(import_module(module), function))
    return typer.main.get_command(app)


def _load_group(name: str, text: str, table: Mapping[str, str]) -> LazyGroup:
    app = typer.Typer(name=name, help=text, cls=LazyGroup, no_args_is_help=True, **SETTINGS)
    return make_group(app, table, {})


def _docstring(target: str) -> str:
    module, _, function = target.partition(":")
    return _docstrings(module).get(function, "")


@cache
def _docstrings(module: str) -> dict[str, str]:
    """Docstrings of a module's functions; none when the source cannot be read."""
    spec = find_spec(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return {}
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.FunctionDef)}
