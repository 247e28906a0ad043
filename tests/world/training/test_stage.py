"""The stage `world_backbone`: it begins with names and look-ups, and the general stage knows of neither."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from llada_uni.training.recipes.recipe import Recipe
from llada_uni.world.training.lookups import Held, LookUpOptions
from llada_uni.world.training.stage import WorldBackboneOptions
from tests.training.world_rows import backbone_config, world_folder, world_text

NEW = LookUpOptions(fit="new", hold=True)


def test_a_stage_begins_with_names_and_look_ups_and_holds_them(tmp_path):
    sizes = {name: value for name, value in backbone_config(world_text()).to_json().items() if not name.startswith("pad")}
    options = WorldBackboneOptions(
        data={str(world_folder(tmp_path / "tokens", 200)): 1.0},
        sizes=sizes,
        samples=4,
        length=128,
        named_codes=True,
        lookups=NEW,
    )
    stage = options.build(Processes(), seed=0)
    heads = Held(stage.backbone, NEW)
    assert not torch.equal(stage.backbone.get_parameter("lm_head.weight"), Backbone(stage.backbone.config).lm_head.weight)
    before = {name: value.clone() for name, value in stage.backbone.named_parameters()}
    run(stage.train(), LoopOptions(steps=3, lr=1e-2, warmup=1, weight_decay=0.1, tensorboard=False), tmp_path / "run")
    assert all(torch.equal(part, kept) for part, kept in zip(heads.parts, heads.kept, strict=True))
    moved = [name for name, value in stage.backbone.named_parameters() if not torch.equal(value, before[name])]
    assert {name for name in before if "attention" in name and name.endswith("weight")} - set(moved) <= {
        name for name in before if "layernorm" in name
    }
    with pytest.raises(UserError, match="leave init out"):
        WorldBackboneOptions(**{**asdict(options), "lookups": NEW, "masking": options.masking, "init": "somewhere"})
    with pytest.raises(UserError, match="low_memory"):
        WorldBackboneOptions(**{**asdict(options), "lookups": NEW, "masking": options.masking, "low_memory": True})


@pytest.mark.parametrize("option", ["named_codes", "lookups"])
def test_the_general_stage_says_where_these_options_are(option):
    plain = {"stage": "backbone", "out": "x", "options": {"data": {"tokens": 1.0}, option: True}}
    with pytest.raises(UserError, match=rf"unknown key options\.{option} \(the stage world_backbone has it\)"):
        Recipe.from_plain(plain)
