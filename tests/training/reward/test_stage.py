"""The stage `reward`: it raises its reward, ratios, resume, reference, and what it says of rewards that are no good."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from llada_uni.checkpoint.load import load_backbone
from llada_uni.errors import UserError
from llada_uni.training.loop.parallel import ParallelOptions
from llada_uni.training.loop.prefetch import draw
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import run
from llada_uni.training.recipes.recipe import Recipe, train
from llada_uni.training.reward.stage import RewardStage
from tests.training.helpers.runs import loss_of, rows
from tests.training.helpers.together import together
from tests.training.reward import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden) -> Path:
    return small.make_folder(tmp_path_factory.mktemp("reward"), golden)


def build(folder: Path, records: str = small.TEXTS, **options) -> RewardStage:
    stage = Recipe.from_plain(small.recipe(folder, records, **options)).options.build(Processes(), 0)
    stage.begin(1)
    return stage.train()


def fit(processes: Processes, plain: dict, out: Path, stop_after: int | None = None, shard: bool = False) -> dict:
    torch.set_num_threads(1)
    recipe = Recipe.from_plain({**plain, "out": str(out)})
    stage = recipe.options.build(processes, recipe.seed)
    return run(stage, recipe.loop, out, recipe.seed, ParallelOptions(shard=shard), processes, stop_after=stop_after)


def test_it_learns_what_is_rewarded(folder, tmp_path):
    heldout = {"heldout": {str(folder / small.TEXTS): 1.0}, "heldout_samples": 4}
    plain = small.recipe(folder, **heldout, prompts=4, group=8, learned=6, kl=1e-3)
    plain["loop"] |= {"steps": 25, "evaluate_every": 25}
    plain["out"] = str(tmp_path / "run")
    train(Recipe.from_plain(plain))
    found = [row for row in rows(tmp_path / "run") if "reward" in row]
    first, last = (sum(row["reward"] for row in part) / 5 for part in (found[:5], found[-5:]))
    assert last > first + 0.15
    assert {"kl", "clipped", "entropy", "length", "ratio", "groups_used", "groups_equal", "groups_failed"} <= set(found[0])
    assert "eval/reward" in rows(tmp_path / "run")[-1]
    model = load_backbone(tmp_path / "run" / "model")
    assert not torch.equal(model.lm_head.weight, load_backbone(folder / "model").lm_head.weight)
    files = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert {"config.json", "tokenizer.json", "generation_config.json"} <= files


@pytest.mark.parametrize("likelihood", ["elbo", "trace"])
@pytest.mark.parametrize("data", [small.TEXTS, small.BOTH])
def test_the_ratio_of_one_and_the_same_network_is_exactly_one(folder, likelihood, data):
    stage = build(folder, data, updates=3, likelihood=likelihood, chunk=16, kl=0.1)
    for step in range(3):
        loss = loss_of(stage, step)
        total, count = loss.metrics["ratio"]
        assert float(total) == count > 0  # a mean of ones; that each is one says the next line
        assert float(loss.metrics["clipped"][0]) == 0
        assert float(loss.metrics["kl"][0]) == 0


def test_answers_are_drawn_alike_from_the_same_seed_and_differ_in_a_group(folder):
    stage = build(folder)
    asked = draw(stage, 0, 0, 0).batch
    one, two = stage._answer(asked, {}), stage._answer(asked, {})
    assert one == two
    assert any(len({made.tokens for made in group.rollouts}) > 1 for group in one.groups)
    other = draw(stage, 0, 1, 0).batch
    assert [prompt.ids for prompt in other.prompts] != [prompt.ids for prompt in asked.prompts]


def assert_resumed_exactly(plain, tmp_path):
    """A run that is stopped after every step and goes on ends with the log and the weights of one that is not."""
    fit(Processes(), plain, tmp_path / "whole")
    for _ in range(6):
        if fit(Processes(), plain, tmp_path / "cut", stop_after=1)["finished"]:
            break
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    states = [load_backbone(tmp_path / name / "model").state_dict() for name in ("cut", "whole")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("options", [{"updates": 2}, {"updates": 3, "kl": 0.1, "likelihood": "trace"}, {"lora": {"rank": 2}}])
def test_a_run_that_is_killed_and_resumed_gives_the_same_numbers(folder, tmp_path, options):
    plain = small.recipe(folder, small.BOTH, **options)
    assert_resumed_exactly(plain, tmp_path)


def test_two_processes_give_what_one_gives(folder, tmp_path):
    plain = small.recipe(folder, small.BOTH, updates=2, lora={"rank": 2})
    plain["loop"]["steps"] = 3
    fit(Processes(), plain, tmp_path / "one")
    together(2, partial(fit, plain=plain, out=tmp_path / "two"))
    together(2, partial(fit, plain=plain, out=tmp_path / "cut", shard=True))
    expected = rows(tmp_path / "one")
    for name in ("two", "cut"):
        for row, wanted in zip(rows(tmp_path / name), expected, strict=True):
            assert row.keys() == wanted.keys()
            assert row == {key: pytest.approx(value, rel=2e-3, abs=1e-5) for key, value in wanted.items()}


@pytest.mark.parametrize("options", [{}, {"lora": {"rank": 2}}])
def test_the_reference_is_the_network_that_training_began_with(folder, options):
    stage = build(folder, kl=0.5, **options)
    scored = stage.scored(stage._answer(draw(stage, 0, 0, 0).batch, {}), 0)
    before = stage.likelihoods(scored)[0].detach()
    torch.testing.assert_close(stage.reference_likelihoods(scored), before, atol=0, rtol=0)
    with torch.no_grad():
        for weight in stage.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    assert (stage.likelihoods(scored)[0] - before).abs().max() > 1e-2
    torch.testing.assert_close(stage.reference_likelihoods(scored), before, atol=0, rtol=0)
    assert (stage._twin[0] is None) == bool(options)  # adapters need no second copy
    assert not any("twin" in name for name in stage.state_dict())
    assert float(loss_of(stage).metrics["kl"][0]) > 0


@pytest.mark.parametrize(
    "reward, said",
    [("same", "equal"), ("broken", "raised KeyError"), ("nothing", "gave nan"), ("words", "gave 'good'")],
)
def test_a_reward_that_is_no_good_skips_the_step_and_ends_the_run_after_a_bound(folder, tmp_path, capsys, reward, said):
    plain = small.recipe(folder, rewards={f"{small.__name__}:{reward}": 1.0})
    plain["loop"] |= {"max_skips": 2, "steps": 9}
    with pytest.raises(UserError, match=rf"{said}.*3 steps in a row had nothing to learn \(loop.max_skips: 2\)"):
        fit(Processes(), plain, tmp_path / "run")
    assert "skipped (2 in a row)" in capsys.readouterr().out


def test_a_skipped_step_leaves_the_weights_as_they_are_and_is_counted(folder, tmp_path):
    plain = small.recipe(folder, rewards={f"{small.__name__}:same": 1.0})
    plain["loop"]["steps"] = 2
    fit(Processes(), plain, tmp_path / "run")
    first, trained = (load_backbone(path) for path in (folder / "model", tmp_path / "run" / "model"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), trained.parameters(), strict=True))
    assert rows(tmp_path / "run")[0]["groups_equal"] == 1.0


@pytest.mark.parametrize(
    "options, said",
    [
        ({"group": 1}, "group is 1; allowed: at least 2"),
        ({"data": {}}, "data is empty"),
        ({"rewards": {}}, "rewards is empty"),
        ({"rates": [0.5, 0.2]}, "rates are 0.5 to 0.2"),
        ({"likelihood": "trace", "rollouts": {"top_p": 0.5}}, "likelihood trace needs"),
        ({"likelihood": "trace", "rollouts": {"image_rule": "t2t"}}, "follow the rule t2t, .*image_rule: threshold"),
        ({"lora": {"rank": 2, "experts": False, "dropout": 0.1}}, "dropout must be 0"),
        ({"rewards": {"wrong": 1.0}}, "unknown reward 'wrong'; allowed: exact, contains, regex, schema"),
        ({"rewards": {"os:nothing": 1.0}}, "cannot be imported"),
        ({"rewards": {"os:sep": 1.0}}, "is no function"),
        ({"length": 16}, "does not fit into sequences of 16"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, options, said):
    with pytest.raises(UserError, match=said):
        loss_of(build(folder, **options))
