"""The shipped model and recipes are found in a checkout and, first of all, inside an installed package."""

from __future__ import annotations

import pytest

from llada_uni.errors import UserError
from llada_uni.files import shipped
from llada_uni.tasks.parts import find_model


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


def test_a_recipe_is_found_by_path_or_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.yaml"
    mine.touch()
    assert shipped.find_recipe("mine.yaml").resolve() == shipped.find_recipe(mine) == mine
    for name in ("world/s1", "world/s1.yaml", "recipes/world/s1.yaml"):
        assert shipped.find_recipe(name) == shipped.shipped("recipes") / "world" / "s1.yaml"
    with pytest.raises(UserError, match="there is no recipe world/s99: give a file, or a name that `llada-uni recipes` lists"):
        shipped.find_recipe("world/s99")
