"""The stage `backbone`: it learns, resumes its data, goes on from its own export, and says what it did."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.load import load_backbone
from llada_uni.data.masking import MaskingOptions
from llada_uni.errors import UserError
from llada_uni.training.language.exported import generation_of
from llada_uni.training.language.lora import LoraOptions
from llada_uni.training.language.losses import masked_positions, weigh
from llada_uni.training.language.stage import BackboneOptions, BackboneStage
from llada_uni.training.loop.prefetch import named_tensors, seeded
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from llada_uni.training.recipes.recipe import read_recipe
from tests.training.helpers.runs import loss_of
from tests.training.tiny_decoder import make_tiny_decoder
from tests.training.token_folder import make_token_folder

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "moe_intermediate_size": 16,
    "rope_theta": 10000,
    "initializer_range": 0.05,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return make_token_folder(tmp_path_factory.mktemp("tokens"))


def options(tokens: Path, **changes) -> BackboneOptions:
    masking = MaskingOptions(block=8, complementary=True)
    values = {"data": {str(tokens): 1.0}, "samples": 6, "length": 128, "masking": masking, "sizes": SIZES, "dtype": "float32"}
    return BackboneOptions(**{**values, **changes})


def build(tokens: Path, **changes) -> BackboneStage:
    return options(tokens, **changes).build(Processes(), seed=0).train()


def train(stage: BackboneStage, out: Path, steps: int, lr: float = 3e-3) -> dict:
    loop = LoopOptions(steps=steps, lr=lr, warmup=10, schedule="constant", log_every=20, tensorboard=False)
    return run(stage, loop, out)


@pytest.mark.parametrize("objective", ["two_stream", "one_block"])
def test_it_learns_and_its_export_is_a_backbone_to_go_on_from(tokens, tmp_path, objective):
    masking = MaskingOptions(block=8, objective=objective)
    changes = {"masking": masking, "weighting": "none", "heldout": str(tokens), "heldout_samples": 12}
    stage = build(tokens, **changes)
    before = stage.eval().evaluate(0)
    assert stage.evaluate(1) == before  # the same records and masks each time
    assert {"loss", "code_acc", "text_acc", "nll/t2i", "nll/story", "masked", "packed"} <= set(before)
    train(stage.train(), tmp_path / "run", 100)
    after = stage.eval().evaluate(100)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["code_acc"] > 0.2  # a guess by frequency is right in one of ten

    model = tmp_path / "run" / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= {p.name for p in model.iterdir()}
    trained = dict(stage.model.state_dict())
    for name, value in load_backbone(model).state_dict().items():
        assert torch.equal(value, trained[name]), name
    again = build(tokens, **changes, sizes=None, init=str(model))
    assert again.eval().evaluate(0) == pytest.approx(after)


def test_every_number_is_a_sum_and_a_count(tokens):
    stage = build(tokens, weighting="inverse_root")
    batch = stage.batch(0, 0, seeded(0, 0, 0))
    loss = stage.loss(batch)
    assert loss.total.requires_grad and loss.weight > 0
    for name in ("code_acc", "text_acc"):
        value, count = loss.metrics[name]
        assert 0 <= float(value) <= count
    masked, learnable = loss.metrics["masked"]
    assert 0 < masked <= learnable  # opposite masks: half of the two copies
    assert masked / learnable == pytest.approx(0.5, abs=0.02)
    assert loss.metrics["tokens"][1] == 0
    assert {"packed.ids", "targets", "counted.code_acc"} <= set(named_tensors(batch))


def test_the_reader_of_a_micro_batch_goes_on_where_it_was(tokens):
    first, second = (build(tokens, samples=None, sequences=2) for _ in range(2))
    for stage in (first, second):
        stage.begin(2)
    state = None
    for step in range(5):
        if step == 3:
            state = first.reader_state(1)
        whole = [loss_of(first, step, 1).total.item()]
    second.load_reader_state(1, state)
    for step in (3, 4):
        parts = [loss_of(second, step, 1).total.item()]
    assert whole == parts
    with pytest.raises(UserError, match="other/folder"):
        second.load_reader_state(0, {"other/folder": {}})


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sequences", [None, 2])
def test_text_is_left_out_use_by_use(tokens, share, sequences):
    """For guidance: of drawings alone, in the given share of the uses, so that one record is met with and without."""
    masking = MaskingOptions(block=8, unconditional=share)
    changes = {"samples": None if sequences else 6, "sequences": sequences, "masking": masking}
    stage = build(tokens, **changes, tasks={"t2i": 0.5, "understand": 0.5})
    stage.begin(1)
    bare = {"t2i": [], "understand": []}
    for step in range(30):
        packed = stage.batch(step, 0, seeded(0, step, 0)).packed
        for segment, task in enumerate(packed.tasks):
            ids = packed.ids[packed.segments == segment].tolist()
            bare[task].append(ids[: len(stage.uncondition)] == stage.uncondition)
    assert not any(bare["understand"])
    assert sum(bare["t2i"]) / len(bare["t2i"]) == pytest.approx(share, abs=0.12)


def test_a_fixed_number_of_sequences_has_one_shape(tokens):
    stage = build(tokens, samples=None, sequences=1, tasks={"t2i": 1.0}, masking=MaskingOptions(block=8, text_share=0.0))
    for step in range(4):
        assert loss_of(stage, step).metrics["packed"][1] == 128
    plain = build(tokens, tasks={"t2i": 1.0})  # records come in the same order, none is put back
    again = build(tokens, tasks={"t2i": 1.0})
    assert all(
        (plain.data.draw(0, random.Random(0)).ids == again.data.take_even(0)[1].record.ids).all() for _ in range(20)
    )


def test_low_memory_building_fills_the_same_weights(tokens):
    whole, later = build(tokens), build(tokens, low_memory=True)
    assert all(parameter.is_meta for parameter in later.parameters())
    later.to_empty(device="cpu")
    later.materialize()
    reference = Backbone(whole.backbone.config).state_dict()
    for name, value in later.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]) and torch.equal(value, reference[name]), name
    assert torch.equal(whole.balance.start, later.balance.start)
    assert later.backbone.routers()[0].load.sum() == 0


def test_adapters_are_trained_alone_and_exported_merged(tokens, tmp_path):
    base = build(tokens)
    base.save(tmp_path / "base", base.state_dict())
    changes = {"sizes": None, "init": str(tmp_path / "base"), "lora": LoraOptions(rank=2), "balance": 0.0}
    stage = build(tokens, **changes)
    frozen = {name for name, parameter in stage.named_parameters() if not parameter.requires_grad}
    assert any("query_key_value" in name for name in frozen) and any("lora" not in name for name in frozen)
    train(stage, tmp_path / "run", 4, lr=1e-2)
    merged = load_backbone(tmp_path / "run" / "model").state_dict()
    changed = {name for name, value in merged.items() if not torch.equal(value, base.model.state_dict()[name])}
    assert changed and all("attention" in name or "experts" in name for name in changed)
    assert (tmp_path / "run" / "model" / "adapter" / "adapter_config.json").is_file()


def test_what_it_draws_is_shown(tokens, golden, tmp_path):
    model = make_tiny_decoder(tmp_path / "tiny", golden)
    stage = build(tokens, heldout=str(tokens), preview=str(model)).eval()
    sheet = stage.pictures(0)["drawn"]
    side = 3 * 16  # nine codes, 16 pixels each, in two rows of up to eight images
    assert sheet.shape[0] == 2 * side + 2 and sheet.shape[1] > 2 * side and len(np.unique(sheet)) > 10
    assert (sheet == stage.pictures(1)["drawn"]).all() and build(tokens, heldout=str(tokens)).pictures(0) == {}


def test_a_share_of_the_data_is_held_out(tokens):
    stage = build(tokens, heldout_share=0.25)
    assert stage.eval().evaluate(0)["loss"] > 0
    assert len(stage.data.readers[str(tokens)]._records["t2i"]) == 45 and stage.heldout.readers[str(tokens)].drawn(0) > 0


def test_two_folders_are_mixed(tokens, tmp_path):
    other = make_token_folder(tmp_path / "other", records=20, seed=1)
    stage = build(tokens, data={str(tokens): 3.0, str(other): 1.0}, tasks={"t2i": 1.0, "story": 1.0})
    rng, tasks = random.Random(0), set()
    for _ in range(40):
        tasks.add(stage.data.draw(0, rng).task)
    taken = {folder: state["draws"] for folder, state in stage.reader_state(0).items()}
    assert tasks == {"t2i", "story"} and 2 < taken[str(other)] < 18


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sizes": None}, "sizes or init"),
        ({"sequences": 3}, "one of the two"),
        ({"weighting": "root"}, "none, linear, inverse_root"),
        ({"frequency_weighting": 2.0}, "0 to 1"),
        ({"sizes": "huge"}, "smoke, world, released_16b"),
        ({"tasks": {"poems": 1.0}}, "poems"),
        ({"data": {}}, "at least one folder"),
        ({"length": 8}, "more than a block"),
        ({"heldout": "a", "heldout_share": 0.1}, "heldout and heldout_share"),
        ({"sizes": {**SIZES, "vocab_size": 500, "image_token_offset": 480}}, "image codes 400 to 415"),
    ],
)
def test_impossible_options_are_refused(tokens, changes, said):
    with pytest.raises(UserError, match=said):
        build(tokens, **changes)


@pytest.mark.parametrize("name", ["s0", "s1", "s2"])
def test_released_recipes_describe_the_released_network(name):
    recipe = read_recipe(Path(__file__).parents[3] / "recipes" / "released" / f"{name}.yaml")
    with torch.device("meta"):
        model = recipe.options.build_model()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(16e9, rel=0.05)
    assert recipe.options.masking.block == 32


@pytest.mark.parametrize(
    "name", [*(f"smoke/s{i}" for i in range(3)), *(f"world/s{i}" for i in range(5)), *(f"photos/s{i}" for i in range(3))]
)
def test_small_recipes_parse(name):
    recipe = read_recipe(Path(__file__).parents[3] / "recipes" / f"{name}.yaml")
    assert recipe.stage in ("backbone", "world_backbone") and recipe.options.data


def test_frequency_weighting_weighs_the_loss(tokens):
    plain, rare = build(tokens), build(tokens, frequency_weighting=0.5)
    batch = plain._samples(plain.data, 0, 4, random.Random(0))
    places = masked_positions(batch)
    wanted = batch.targets.flatten()[places]
    assert len(set(rare.token_weights[wanted].tolist())) > 1
    with torch.no_grad():
        logits = plain.model(batch.ids, batch.positions, batch.mask()).flatten(0, 1)[places]
        losses = F.cross_entropy(logits, wanted, reduction="none")
        expected = (losses * weigh(batch, places, plain.options.weighting)[0] * rare.token_weights[wanted]).sum()
        torch.testing.assert_close(rare.loss(rare._asked(batch)).total, expected)


def test_what_goes_on_from_a_published_directory_keeps_its_profile(tmp_path):
    assert generation_of(str(tmp_path)) == {"profile": "published"}
    assert generation_of(None) == {}
    (tmp_path / "generation_config.json").write_text('{"edit": {"rescale": 0.5}}')
    assert generation_of(str(tmp_path)) == {"edit": {"rescale": 0.5}}
