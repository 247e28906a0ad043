"""Finds by name what plug-ins add (stages, sources, suites, commands), so that general code imports none of them.

A plug-in is a light module with a table for each kind of thing it adds, names to "module:attribute":

    STAGES = {"patch_tokenizer": "llada_uni.world.training.patch_tokenizer:PatchTokenizerOptions"}

Two places are searched: `plugin.py` in every folder of this package, which needs no installation and so is never out of
date in a checkout; and, for packages of other people, the entry points of the group "llada_uni.plugins", each naming such
a module. A target is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from llada_uni.errors import UserError

GROUP = "llada_uni.plugins"
KINDS = MappingProxyType(
    {
        "stages": "options class of a training stage (training/recipes/stages.py)",
        "sources": "function that opens conversation records, `(name, side) -> RecordSource` (data/sources.py)",
        "images": "function that opens images with texts, `(side, split) -> PictureSource` (data/pictures.py)",
        "words": "function that lists words, each to be one token of a new tokenizer, `() -> list[str]` (data/vocabulary.py)",
        "rewards": "function that judges an answer, `(Conversation, Answer) -> float` (training/reward/rewards.py)",
        "suites": "function that makes an evaluation suite, `(name) -> Suite` (evaluation/suite.py)",
        "commands": "function of a command, as typer reads it; \"data mine\" is `mine` in the group data (cli/__init__.py)",
    }
)
"""Kind to what a target of it is. The table in the plug-in has the same name in capitals."""


@cache
def table(kind: str) -> MappingProxyType[str, str]:
    """All names of one kind with their targets. UserError when two plug-ins use one name, or one cannot be imported."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of plug-in {kind!r}; allowed: {', '.join(KINDS)}")
    found: dict[str, str] = {}
    for plugin in _plugins():
        for name, target in getattr(plugin, kind.upper(), {}).items():
            if found.setdefault(name, target) != target:
                raise UserError(f"two plug-ins add {kind} {name!r}: {found[name]} and {target}; remove one of the packages")
    return MappingProxyType(found)


def load(kind: str, name: str) -> Any:
    """The target called `name`, imported now. UserError when there is none."""
    known = table(kind)
    if name not in known:
        raise UserError(f"unknown name {name!r} of {kind}; allowed: {', '.join(known) or 'none (no plug-in adds any)'}")
    module, _, attribute = known[name].partition(":")
    return getattr(_import(module, f"{kind} {name!r}"), attribute)


@cache
def _plugins() -> tuple[ModuleType, ...]:
    return tuple(_import(module, f"the plug-in {module}") for module in dict.fromkeys((*_own(), *_installed())))


def _own() -> Iterator[str]:
    for file in sorted(Path(__file__).parent.glob("*/plugin.py")):
        yield f"{__package__}.{file.parent.name}.plugin"


def _installed() -> Iterator[str]:
    for entry in entry_points(group=GROUP):
        yield entry.value


def _import(module: str, what: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{what} cannot be imported ({error}); is its package installed completely?") from None
