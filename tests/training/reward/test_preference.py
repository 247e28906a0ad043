"""The stage `preference`: it learns which of two answers is better, and begins where it is indifferent."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.recipes.recipe import Recipe, train
from llada_uni.training.reward.objective import preference_loss
from tests.tiny_model import WORDS
from tests.training.helpers.runs import loss_of, rows
from tests.training.reward import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden) -> Path:
    folder = small.make_folder(tmp_path_factory.mktemp("preference"), golden)
    said = [[{"role": "user", "content": words}, {"role": "assistant", "content": "a dog"}] for words in WORDS]
    lines = [json.dumps({"task": "text", "messages": messages, "rejected": "on green"}) for messages in said]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder


def plain(folder: Path, out: Path, **options) -> dict:
    small_options = {"init": str(folder / "model"), "data": {str(folder / "pairs.jsonl"): 1.0}, "pairs": 4, "length": 128}
    loop = {"steps": 12, "lr": 5e-3, "warmup": 0, "log_every": 1, "tensorboard": False}
    return {"stage": "preference", "out": str(out), "loop": loop, "options": {**small_options, "dtype": "float32", **options}}


@pytest.mark.parametrize("options", [{}, {"lora": {"rank": 4}, "normalized": True, "beta": 2.0}])
def test_it_learns_to_prefer(folder, tmp_path, options):
    heldout = {"heldout": {str(folder / "pairs.jsonl"): 1.0}, "heldout_samples": 4}
    recipe = plain(folder, tmp_path / "run", **options, **heldout)
    recipe["loop"]["evaluate_every"] = 12
    train(Recipe.from_plain(recipe))
    found = rows(tmp_path / "run")
    assert found[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)  # the network is its own reference yet
    assert found[-1]["eval/loss"] < 0.6 * math.log(2)
    assert found[-1]["eval/preferred"] == 1.0


def test_the_loss_is_that_of_its_definition():
    numbers = torch.tensor([[-3.0, -5.0, -4.0, -4.5]], dtype=torch.float64)
    wanted = math.log(1 + math.exp(-0.5 * ((-3.0 + 4.0) - (-5.0 + 4.5))))
    assert float(preference_loss(*numbers.T, beta=0.5)) == pytest.approx(wanted, abs=1e-12)


def test_mistakes(folder, tmp_path):
    for options, said in (
        ({"data": {}}, "data is empty"),
        ({"likelihood": "trace"}, "allowed here: elbo"),
        ({"beta": 0}, "above 0"),
    ):
        with pytest.raises(UserError, match=said):
            Recipe.from_plain(plain(folder, tmp_path, **options))
    texts = {"data": {str(folder / small.TEXTS): 1.0}}
    with pytest.raises(UserError, match='it has no "rejected"'):
        loss_of(Recipe.from_plain(plain(folder, tmp_path, **texts)).options.build(Processes(), 0))
