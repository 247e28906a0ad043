"""The shipped model and recipes are found in a checkout and, first of all, inside an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llada_uni.errors import UserError
from llada_uni.files import shipped
from llada_uni.tasks.parts import find_model
from llada_uni.training.export import model_folder
from llada_uni.training.language.stage import BackboneOptions


def test_a_checkout_has_them_beside_the_package():
    assert find_model(shipped.MODEL) == shipped.shipped("models") / shipped.MODEL
    recipes = shipped.shipped_recipes()
    assert "world/s1" in recipes and all(path.is_file() for path in recipes.values())


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "llada_uni")
    for name in ("llada_uni/shipped/recipes/a/one.yaml", "recipes/a/two.yaml", "models/world/config.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("stage: vae\n")
    (tmp_path / "llada_uni/shipped/recipes/a/wordings.yaml").write_text("caption: [it is a {}]\n")  # no recipe
    assert list(shipped.shipped_recipes()) == ["a/one"] and list(shipped.shipped_models()) == ["world"]
    assert shipped.shipped("models") == tmp_path / "models"


def test_a_model_is_found_by_path_or_name_wherever_one_is(tmp_path, monkeypatch):
    """Recipes and the README name models/world, which an installed program does not have in the working directory."""
    monkeypatch.chdir(tmp_path)
    there = shipped.shipped("models") / "world"
    for name in ("world", "models/world"):
        assert shipped.named_model(name) == find_model(name) == model_folder(name) == there
    assert str(find_recipe_init("world/lora")) == str(there)
    assert shipped.named_model("nowhere") == Path("nowhere")
    (tmp_path / "models" / "world").mkdir(parents=True)  # a directory of one's own comes first
    assert shipped.named_model("models/world") == Path("models/world")


def find_recipe_init(name: str) -> str:
    """The model that a shipped recipe goes on from, as training reads it."""
    options = yaml.safe_load(shipped.find_recipe(name).read_text(encoding="utf-8"))["options"]
    return BackboneOptions(data={"tokens": 1.0}, init=options["init"], samples=1).init


def test_a_recipe_is_found_by_path_or_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.touch()
    assert shipped.find_recipe("mine.yaml").resolve() == shipped.find_recipe(mine) == mine
    for name in ("world/s1", "world/s1.yaml", "recipes/world/s1.yaml"):
        assert shipped.find_recipe(name) == shipped.shipped("recipes") / "world" / "s1.yaml"
    with pytest.raises(UserError, match="there is no recipe world/s99: give a file, or a name that `llada-uni recipes` lists"):
        shipped.find_recipe("world/s99")
