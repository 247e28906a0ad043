"""A recipe: one YAML file that says everything about one training run.

    stage: backbone          # what is trained (stages.py)
    out: runs/smoke/s1       # the run directory
    seed: 0
    loop: {steps: 200}       # LoopOptions: the one loop, the same for every stage
    parallel: {}             # ParallelOptions: how the work is spread over processes
    options: {length: 192}   # the stage's own (an @options class)

YAML and `key=value` words -> plain data -> checked options (llada_uni/options.py) -> `Recipe`.
A mistake is a UserError that names the key and what is allowed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file
from llada_uni.options import describe, from_plain, to_plain, unknown_key
from llada_uni.training.loop.changes import described, differences, is_allowed
from llada_uni.training.loop.parallel import ParallelOptions, setup_processes
from llada_uni.training.loop.trainer import LoopOptions, check_resumable, run
from llada_uni.training.recipes.stages import stage_options

FILE = "recipe.yaml"

@dataclass
class Recipe:
    """A checked recipe. `options`: an instance of the stage's dataclass, whose `build(processes, seed)` gives the stage."""

    stage: str
    out: Path
    options: Any
    seed: int = 0
    loop: LoopOptions = field(default_factory=LoopOptions)
    parallel: ParallelOptions = field(default_factory=ParallelOptions)

    def to_plain(self) -> dict[str, Any]:
        """Every key with its value, as plain YAML values; `Recipe.from_plain` of it gives an equal recipe."""
        head = {"stage": self.stage, "out": str(self.out), "seed": self.seed}
        return head | {name: to_plain(getattr(self, name)) for name in ("loop", "parallel", "options")}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe of plain data. UserError for an unknown or missing key, a wrong type, an unknown stage."""
        allowed = [f.name for f in dataclasses.fields(cls)]
        for key in data:
            if key not in allowed:
                raise UserError(unknown_key(str(key), allowed))
        if not isinstance(data.get("stage"), str):
            raise UserError("the recipe lacks stage: the name of a training stage")
        if not isinstance(data.get("out"), (str, Path)):
            raise UserError("the recipe lacks out: the run directory")
        return cls(
            stage=data["stage"],
            out=Path(data["out"]),
            seed=from_plain(int, data.get("seed", 0), "seed"),
            loop=from_plain(LoopOptions, data.get("loop"), "loop"),
            parallel=from_plain(ParallelOptions, data.get("parallel"), "parallel"),
            options=from_plain(stage_options(data["stage"]), data.get("options"), "options"),
        )


def read_recipe(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with `key=value` changes ("loop.steps=50"; values are YAML) put over it."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the recipe {path} cannot be read ({error.strerror or error})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must hold the keys of a recipe: {', '.join(f.name for f in dataclasses.fields(Recipe))}")
    for change in changes:
        _put(data, change)
    return Recipe.from_plain(data)


def train(recipe: Recipe, allow: Collection[str] = ()) -> dict[str, Any]:
    """Runs a recipe, from its last checkpoint on where there is one; what `trainer.run` returns.

    The same call on one process, under torchrun, and in a worker of Ray Train. allow: keys that may differ from those of the
    run so far; what is then no longer exact is said. UserError for all that a person can mend.
    """
    processes = setup_processes()
    changed = _check_run(recipe, allow)
    stage = recipe.options.build(processes, recipe.seed)
    if changed:
        check_resumable(stage, recipe.loop, recipe.out, recipe.seed, changed)  # before the directory takes the new recipe
    processes.barrier()
    if processes.is_main:
        with atomic_file(recipe.out / FILE) as temporary:
            temporary.write_text(to_yaml(recipe), encoding="utf-8")
    return run(
        stage, recipe.loop, recipe.out, recipe.seed, recipe.parallel, processes, recipe.to_plain(), changed=changed
    )


def _check_run(recipe: Recipe, allow: Collection[str]) -> tuple[str, ...]:
    """The keys that differ from the recipe of the run directory, all of them allowed; UserError when others do."""
    path = recipe.out / FILE
    if not path.is_file():
        return ()
    before, after = read_recipe(path).to_plain(), recipe.to_plain()
    changed = differences(before, after)
    refused = [key for key in changed if not is_allowed(key, allow)]
    if refused:
        listed = ", ".join(described(key, before, after) for key in refused[:3])
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise UserError(
            f"{recipe.out} holds a run of another recipe: {listed}{more}; give another run directory (out=...), "
            f"the same recipe to go on with it, or --allow-change {','.join(refused[:3])} to go on with a changed one"
        )
    return tuple(changed)


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.to_plain(), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def describe_keys(recipe: Recipe) -> list[str]:
    """One line a key that can be set for this stage: its name, type and default."""
    lines: list[str] = []
    for section in ("loop", "parallel", "options"):
        lines += describe(type(getattr(recipe, section)), section)
    return lines


def _put(data: dict[str, Any], change: str) -> None:
    """Puts "a.b=value" into nested plain data."""
    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"{change!r} is no change of the recipe; allowed: key=value, as in loop.steps=50")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"the value of {key} is not YAML: {text}") from None
    *path, last = key.split(".")
    for name in path:
        if data.get(name) is None:
            data[name] = {}
        data = data[name]
        if not isinstance(data, dict):
            raise UserError(f"unknown key {key}; {name} has no keys inside")
    data[last] = value
