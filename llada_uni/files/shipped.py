"""Where the model and the recipes lie that come with the program: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llada_uni.errors import UserError

MODEL = "world"
"""Name of the shipped model: the default wherever a model can be named."""
INSIDE = "shipped"
"""Folder of the installed package that setup.py fills."""
_PACKAGE = Path(__file__).parents[1]
_STAGE = re.compile(r"^stage:", re.MULTILINE)


def shipped(kind: str) -> Path:
    """The folder of "models" or "recipes"; it need not exist (a container may leave models out)."""
    inside = _PACKAGE / INSIDE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def shipped_models() -> dict[str, Path]:
    """Every model that comes with the program, by its name."""
    return {path.name: path for path in sorted(shipped("models").glob("*")) if path.is_dir()}


def named_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The path where there is a directory; else the shipped model that it names ("world"; "models/world" anywhere, as an
    installed program has no such folder); else the path.
    """
    path = Path(name_or_path).expanduser()
    return path if path.is_dir() else shipped_models().get(Path(name_or_path).as_posix().removeprefix("models/"), path)


def shipped_recipes() -> dict[str, Path]:
    """Every shipped recipe by its name, "world/s1" for recipes/world/s1.yaml. Other YAML files beside them name no stage."""
    folder = shipped("recipes")
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.yaml"))}
    return {name: path for name, path in found.items() if _STAGE.search(path.read_text(encoding="utf-8"))}


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped one ("world/s1"; "recipes/world/s1.yaml" anywhere).

    UserError when there is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = path.with_suffix("").as_posix() if path.suffix == ".yaml" else path.as_posix()
    found = shipped_recipes().get(name.removeprefix("recipes/"))
    if found is None:
        raise UserError(f"there is no recipe {name_or_path}: give a file, or a name that `llada-uni recipes` lists")
    return found
