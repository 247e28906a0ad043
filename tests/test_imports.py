"""Imports run one way, from the ground floor up: no room imports a higher one, no two modules each other.

Counted are all imports: at the top of a file, inside functions and for type checkers only. A circle that exists for a type
checker alone is still one that a reader walks in.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = """
errors
checked options
files
config plugins
image backbone
text
decoder checkpoint
results
generation
requests hub bars
tasks
model
data serving adapters graphs
training evaluation verify doctor
cli
world photos __main__
"""
"""A line may import the lines above it and, of its own line, its own room only. A new room needs a place here."""

@cache
def modules() -> dict[str, Path]:
    files = (ROOT / "llada_uni").rglob("*.py")
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports_of(source: str) -> Iterator[str]:
    """Every module of ours that a source imports. "from a import b" is a.b where that is a module, else a."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "llada_uni")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the package are written out in full"
            if node.module and node.module.split(".")[0] == "llada_uni":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in modules() else node.module


@cache
def graph() -> dict[str, set[str]]:
    return {name: set(imports_of(path.read_text(encoding="utf-8"))) - {name} for name, path in modules().items()}


def room(module: str) -> str:
    """The folder or file below llada_uni that a module is in; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def level() -> dict[str, int]:
    return {name: height for height, line in enumerate(LAYERS.split("\n")) for name in line.split()}


def upwards(graph: dict[str, set[str]]) -> list[str]:
    """A line for every import that does not go down."""
    height = level()
    return [
        f"{module} ({room(module)}) imports {target} ({room(target)})"
        for module, targets in sorted(graph.items())
        for target in sorted(targets)
        if room(module) != room(target)
        if room(target) and room(module) and height[room(target)] >= height[room(module)]
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_room_has_its_layer():
    assert {room(module) for module in modules()} - {""} <= set(level())


def test_no_import_runs_upwards():
    assert upwards(graph()) == []


def test_no_two_modules_import_each_other():
    assert circle(graph()) == []


def test_the_world_is_named_nowhere_else():
    """Not by a string for importlib either: what it adds is found by plugins.py."""
    outside = {name: path for name, path in modules().items() if room(name) not in ("world", "plugins")}
    assert [name for name, path in outside.items() if "llada_uni.world" in path.read_text(encoding="utf-8")] == []


def test_faults_are_found():
    source = "import llada_uni.cli\ndef f():\n    from llada_uni.text import prompts\n    import numpy\n"
    assert set(imports_of(source)) == {"llada_uni.cli", "llada_uni.text.prompts"}
    assert upwards({"llada_uni.image.codes": {"llada_uni.text.prompts"}}) != []
    assert upwards({"llada_uni.image.codes": {"llada_uni.backbone.moe"}}) != []  # one line, two rooms
    assert upwards({"llada_uni.text.prompts": {"llada_uni.image.codes", "llada_uni.text.tokenizer"}}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not circle({"a": {"b"}, "b": {"c"}})
