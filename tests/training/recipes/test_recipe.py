"""Recipes: what is read is what was written; every mistake is one line that names the key and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from llada_uni.errors import UserError
from llada_uni.files.shipped import shipped_recipes
from llada_uni.training.recipes import stages
from llada_uni.training.recipes.recipe import FILE, Recipe, describe_keys, read_recipe, to_yaml, train
from tests.training.toy_stage import ToyOptions

TOY = """
stage: toy
out: run
loop: {steps: 3, lr: 1e-2, save_every: 0}
options: {width: 2, weights: {t2i: 0.5}}
"""


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    monkeypatch.setitem(stages.STAGES, "toy", "tests.training.toy_stage:ToyOptions")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(TOY)


def test_values_and_defaults():
    recipe = read_recipe("toy.yaml")
    assert (recipe.stage, recipe.out, recipe.seed) == ("toy", Path("run"), 0)
    assert recipe.loop.steps == 3 and recipe.loop.lr == 0.01
    assert recipe.options == ToyOptions(width=2, weights={"t2i": 0.5})


def test_changes_from_the_command_line():
    changes = ["loop.steps=7", "loop.lr=2e-3", "options.lora.rank=3", "options.lora.experts=false", "out=x/y"]
    more = ["options.weights.edit=1", "options.sizes=[3, 4]", "options.rule=absolute"]
    recipe = read_recipe("toy.yaml", changes + more)
    assert recipe.loop.steps == 7 and recipe.loop.lr == 0.002 and recipe.out == Path("x/y")
    assert recipe.options.lora.rank == 3 and not recipe.options.lora.experts
    assert recipe.options.weights == {"t2i": 0.5, "edit": 1.0} and recipe.options.sizes == (3, 4)
    assert read_recipe("toy.yaml", ["options.weights=null"]).options.weights is None


def test_the_resolved_recipe_reads_back_equal():
    recipe = read_recipe("toy.yaml", ["options.lora.rank=3", "seed=5"])
    assert Recipe.from_plain(yaml.safe_load(to_yaml(recipe))) == recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["loop.stepz=3"], ["loop.stepz", "did you mean steps?", "micro_batches"]),
        (["option.width=3"], ["option", "did you mean options?", "parallel"]),
        (["options.lora.rnk=3"], ["options.lora.rnk", "rank", "alpha"]),
        (["loop.steps=many"], ["loop.steps", "many", "integer"]),
        (["loop.steps=2.5"], ["loop.steps", "2.5", "integer"]),
        (["options.rule=cubic"], ["options.rule", "cubic", "allowed: square, absolute"]),
        (["options.weights.t2i=lots"], ["options.weights.t2i", "lots", "number"]),
        (["options.width=0"], ["options", "width is 0", "at least 1"]),
        (["options.lora.rank=0"], ["options.lora", "rank is 0", "at least 1"]),
        (["loop.schedule=zigzag"], ["loop.schedule", "zigzag", "cosine"]),
        (["stage=tower"], ["tower", "backbone", "distill"]),
        (["options=5"], ["options", "5", "width"]),
        (["seed=x"], ["seed", "x", "integer"]),
        (["out=null"], ["out", "run directory"]),
        (["steps"], ["steps", "key=value"]),
        (["=3"], ["=3", "key=value"]),
        (["seed.deep=3"], ["seed", "deep", "integer"]),
        (["seed=1", "seed.deep=3"], ["seed.deep", "no keys inside"]),
        (["loop.steps=[1"], ["loop.steps", "[1"]),
    ],
)
def test_mistakes_are_one_line_that_names_key_and_choices(changes, words):
    with pytest.raises(UserError) as caught:
        read_recipe("toy.yaml", changes)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize("text", ["[1, 2]", "stage: [", "\xff\xfe", "out: run"])
def test_files_that_are_no_recipe(text):
    Path("bad.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        read_recipe("bad.yaml")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe("none.yaml")


def test_every_key_is_listed_with_type_and_default():
    lines = describe_keys(read_recipe("toy.yaml"))
    assert "loop.steps: int = 1000" in lines and "options.width: int = 4" in lines
    assert "options.lora.rank: int = 16" in lines and any(line.startswith("parallel.shard: bool") for line in lines)


def test_training_keeps_the_recipe_and_goes_on_only_with_the_same():
    first = train(read_recipe("toy.yaml"))
    assert first["finished"] and yaml.safe_load(Path("run", FILE).read_text())["loop"]["steps"] == 3
    longer = train(read_recipe("toy.yaml", ["loop.steps=5", "loop.log_every=1", "parallel.shard=true"]))
    assert longer["step"] == 5
    kept = Path("run", FILE).read_text()
    with pytest.raises(UserError, match=r"options\.noise.*0.1 there.*0.3 here.*out=") as caught:
        train(read_recipe("toy.yaml", ["options.noise=0.3"]))
    assert "\n" not in str(caught.value) and Path("run", FILE).read_text() == kept


def test_a_run_goes_on_with_what_may_change_and_says_what_is_not_exact(capsys):
    steps = ["loop.steps=6", "loop.log_every=1", "loop.warmup=0", "loop.schedule=constant", "loop.save_every=1"]
    train(read_recipe("toy.yaml", [*steps, "out=whole", "loop.lr=0.01"]))
    train(read_recipe("toy.yaml", [*steps, "out=cut", "loop.lr=0.01", "loop.steps=3"]))
    with pytest.raises(UserError, match=r"loop\.lr \(0\.01 there, 0\.0 here\).*--allow-change loop\.lr"):
        train(read_recipe("toy.yaml", [*steps, "out=cut", "loop.lr=0.0"]))
    capsys.readouterr()
    train(read_recipe("toy.yaml", [*steps, "out=cut", "loop.lr=0.0"]), allow=("loop.lr",))
    assert "loop.lr is another one now: the learning rate is that of the new schedule" in capsys.readouterr().out
    rows = [json.loads(line) for line in Path("cut/log.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == [0.01] * 3 + [0.0] * 3
    train(read_recipe("toy.yaml", [*steps, "out=cut", "loop.lr=0.0"]))  # the new recipe is now that of the run

    # The optimizer's state is kept: with the rate as it was, other micro-batches of the same noise-free loss change nothing.
    quiet = [*steps, "options.noise=0.0", "loop.lr=0.01"]
    train(read_recipe("toy.yaml", [*quiet, "out=one"]))
    train(read_recipe("toy.yaml", [*quiet, "out=two", "loop.steps=3"]))
    train(read_recipe("toy.yaml", [*quiet, "out=two", "loop.micro_batches=4"]), allow=("loop.micro_batches",))
    logs = (Path(out, "log.jsonl").read_text().splitlines() for out in ("one", "two"))
    one, two = ([json.loads(line)["loss"] for line in log] for log in logs)
    assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "allow", "said"),
    [
        ("options.width=5", ("options",), r"width \(2 there, 5 here\)"),  # the fingerprint: weights would not fit
        ("loop.ema=0.5", ("loop.ema",), "ema"),
        ("options.lora.rank=4", ("options",), "cannot be changed in a run"),
        ("loop.lr=5.0", ("loop.betas",), "--allow-change loop.lr"),
    ],
)
def test_what_would_not_fit_is_refused_and_changes_nothing(change, allow, said):
    train(read_recipe("toy.yaml", ["loop.save_every=1"]))
    kept = Path("run", FILE).read_text()
    with pytest.raises(UserError, match=said):
        train(read_recipe("toy.yaml", ["loop.steps=9", change]), allow)
    assert Path("run", FILE).read_text() == kept


# --- the recipes that come with the project ---

RECIPES = sorted(shipped_recipes().values())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipes_of_the_project(path):
    recipe = read_recipe(path)
    assert recipe.out == Path("runs") / path.parent.name / path.stem
    if path.parent.name == "released" and hasattr(recipe.options, "build_model"):
        with torch.device("meta"):
            model = recipe.options.build_model()
        assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_of_the_project_measures_a_validation_loss(path):
    recipe = read_recipe(path)
    assert 0 < recipe.loop.evaluate_every <= recipe.loop.steps
    if hasattr(recipe.options, "heldout_share"):  # the backbone's; others hold images out of their source, or have another one
        assert recipe.options.heldout or recipe.options.heldout_share
