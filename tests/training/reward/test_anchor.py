"""Ordinary records beside the answers of a reward step: their loss is added, what they teach stays, and resuming is exact."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from llada_uni.data.extract import Extraction, extract
from llada_uni.errors import UserError
from llada_uni.training.loop.prefetch import draw
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.recipes.recipe import Recipe
from tests.training.helpers.runs import loss_of, rows
from tests.training.helpers.together import together
from tests.training.reward import small
from tests.training.reward.test_stage import assert_resumed_exactly, build, fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden) -> Path:
    made = small.make_folder(tmp_path_factory.mktemp("anchor"), golden)
    extract(Extraction(str(made / small.BOTH), str(made / "tokens"), str(made / "model")))
    return made


def anchor(folder: Path, **changes: Any) -> dict[str, Any]:
    own = {"data": {str(folder / "tokens"): 1.0}, "samples": 4, "length": 128, "masking": {"block": 8}, "weight": 0.5}
    return {"anchor": {**own, **changes}}


def gradients(stage: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    trained = [weight for weight in stage.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    return [torch.zeros_like(weight) if one is None else one for weight, one in zip(trained, found, strict=True)]


def test_the_loss_is_that_of_the_answers_and_so_much_of_the_mean_loss_of_the_records(folder):
    stage = build(folder, small.BOTH, **anchor(folder, weight=0.25))
    asked = draw(stage, 0, 0, 0).batch
    both, alone = stage.loss(asked), stage.loss(asked._replace(records=None))
    own = stage.anchor.loss(asked.records)  # the stage `backbone` itself
    assert both.weight == alone.weight > 0
    total, weight = both.metrics["anchor"]
    assert float(total) == pytest.approx(own.total.item()) and weight == own.weight
    mean = own.total / own.weight
    torch.testing.assert_close(both.total, alone.total + 0.25 * alone.weight * mean)
    expected = [a + 0.25 * alone.weight * b for a, b in zip(gradients(stage, alone.total), gradients(stage, mean), strict=True)]
    for found, wanted in zip(gradients(stage, both.total), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-3)


def test_it_has_no_weights_of_its_own(folder):
    with_, without = build(folder, **anchor(folder)), build(folder)
    assert set(with_.state_dict()) == set(without.state_dict())
    assert with_.anchor.backbone is with_.backbone and without.anchor is None


def test_a_step_whose_answers_teach_nothing_learns_no_records_either(folder):
    stage = build(folder, rewards={f"{small.__name__}:same": 1.0}, **anchor(folder))
    loss = loss_of(stage)
    assert loss.weight == 0 and loss.total.item() == 0


def test_what_the_records_teach_stays(folder, tmp_path):
    """Rewarded is what the records do not hold; with them beside, their loss falls, and without them it rises."""
    losses = {}
    for name, changes in (("with", anchor(folder, weight=3.0)), ("without", {})):
        plain = small.recipe(folder, small.TEXTS, **changes)
        plain["loop"]["steps"] = 10
        fit(Processes(), plain, tmp_path / name)
        stage = build(folder, init=str(tmp_path / name / "model"), **anchor(folder, samples=16)).eval()
        with torch.no_grad():
            total, weight = loss_of(stage).metrics["anchor"]
        losses[name] = float(total) / weight
    assert losses["with"] < 0.8 * losses["without"]


@pytest.mark.parametrize("options", [{}, {"updates": 2, "lora": {"rank": 2}}])
def test_a_run_that_is_killed_and_resumed_gives_the_same_numbers(folder, tmp_path, options):
    plain = small.recipe(folder, small.BOTH, **options, **anchor(folder))
    assert_resumed_exactly(plain, tmp_path)


def test_two_processes_give_what_one_gives(folder, tmp_path):
    plain = small.recipe(folder, small.BOTH, **anchor(folder))
    plain["loop"]["steps"] = 3
    fit(Processes(), plain, tmp_path / "one")
    together(2, partial(fit, plain=plain, out=tmp_path / "two"))
    for row, wanted in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        assert row == {key: pytest.approx(value, rel=2e-3, abs=1e-5) for key, value in wanted.items()}


def test_a_block_of_another_length_is_refused_before_anything_is_built(folder):
    recipe = Recipe.from_plain(small.recipe(folder, **anchor(folder, masking={"block": 16})))
    with pytest.raises(UserError, match=r"anchor.masking.block is 16; the model writes blocks of 8"):
        recipe.options.build(Processes(), 0)
