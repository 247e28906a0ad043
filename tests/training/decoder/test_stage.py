"""The flow stage: its loss, what is frozen, what is exported."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from llada_uni.decoder.decode import ImageDecoder
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.training.decoder.decoder_model import DecoderSizes
from llada_uni.training.decoder.stage import DecoderOptions, FlowTimes, mixed, squared_error
from llada_uni.training.loop.prefetch import seeded
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from tests.training.tiny_decoder import SIZES, latent_options, make_tiny_decoder

LOOP = LoopOptions(steps=2, lr=1e-2, warmup=1, log_every=1, tensorboard=False)


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    return make_tiny_decoder(tmp_path_factory.mktemp("model"), golden)


@pytest.fixture(scope="module")
def build(model, tmp_path_factory):
    latents = latent_options(model, tmp_path_factory.mktemp("latents"))

    def make(**changes):
        return DecoderOptions(latents, **{"sizes": SIZES, "batch": 3, "evaluate": 2, **changes}).build(Processes(), 0)

    return make


def test_a_perfect_velocity_has_no_loss(build):
    stage = build()
    batch = stage.batch(0, 0, seeded(0, 0, 0))
    seen = {}

    def perfect(state, t, codes, drop=None):
        seen["state"], seen["t"], seen["drop"] = state, t, drop
        return batch.latents - batch.noise

    stage.model.forward = perfect
    loss = stage.loss(batch)
    assert loss.total.item() == 0 and loss.weight == 3 and seen["drop"] is batch.drop
    at = seen["t"].view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(seen["state"], at * batch.latents + (1 - at) * batch.noise)


def test_errors_are_means_of_each_sample():
    found, wanted = torch.zeros(2, 3, 4), torch.tensor([1.0, 2.0]).view(2, 1, 1).expand(2, 3, 4)
    assert squared_error(found, wanted).tolist() == [1.0, 4.0]
    ends = mixed(torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0.0, 1.0]))
    assert ends.tolist() == [[0.0] * 3, [1.0] * 3]  # t = 0 is noise, t = 1 data


def test_times_are_uniform_or_shifted_toward_noise():
    generator = torch.Generator().manual_seed(0)
    assert FlowTimes(shifted=0.0).draw(4000, generator).mean() == pytest.approx(0.5, abs=0.02)
    shifted = FlowTimes(shifted=1.0).draw(4000, generator)
    assert 0 <= shifted.min() and shifted.max() <= 1
    assert shifted.median() == pytest.approx(0.5 / (0.5 + 6 - 3), abs=0.02)


def test_dropped_conditions_are_zeros(build):
    model = build().model
    codes = torch.tensor([[[1, 2], [3, 4]]] * 2)
    condition = model.condition(codes, torch.tensor([True, False]))
    assert condition.shape == (2, 16, 32) and not condition[0].any() and condition[1].any()
    assert torch.equal(condition[1, [0, 1, 4, 5]], condition[1, :1].expand(4, -1))  # the first code stands 2 x 2 times


@pytest.mark.parametrize("train", ["transformer", "all"])
def test_the_condition_embedder_stays_frozen_when_asked(build, tmp_path, train):
    stage = build(train=train, position_probes=0.1)
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    run(stage, LOOP, tmp_path)
    changed = {name for name, tensor in stage.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("model.transformer.layers.") for name in changed)
    assert any(name.startswith("probes.") for name in changed)
    assert any(name.startswith("model.sigvq.") for name in changed) == (train == "all")


def test_probes_need_layers_to_read(build):
    sizes = replace(SIZES, transformer={**SIZES.transformer, "n_layers": 1})
    with pytest.raises(UserError, match="position_probes read 2 layers and the transformer has 1: set them to 0"):
        build(sizes=sizes, position_probes=0.1)


def test_the_export_paints_and_is_where_the_next_stage_starts(build, model, tmp_path):
    stage = build()
    run(stage, LOOP, tmp_path / "first")
    exported = tmp_path / "first" / "model"
    assert sorted(p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()) == [
        "decoder/config.json", "decoder/model.safetensors", "image_tokenizer/sigvq_embedding.pt",
    ]  # fmt: skip
    following = build(init=str(tmp_path / "first"))
    for name, tensor in stage.model.state_dict().items():
        assert torch.equal(tensor, following.model.state_dict()[name])
    decoder = ImageDecoder.from_pretrained(exported)
    decoder._vae = ImageDecoder.from_pretrained(model).vae
    assert decoder.decode(ImageCodes((1, 2, 3, 4), 2, 2), "base", 3).size == (32, 32)
    # The sampler's velocity is the trained network's.
    state, codes = torch.randn(1, 4, 1, 8, 8), torch.tensor([[[1, 2], [3, 4]]])
    with torch.no_grad():
        expected = stage.model(state, torch.tensor([0.3]), codes)
    found = decoder.velocity("base", state, 0.3, decoder.condition(ImageCodes((1, 2, 3, 4), 2, 2)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_evaluation_is_the_same_every_time(build):
    stage = build()
    assert stage.evaluate(0) == stage.evaluate(7)


def test_mistakes_are_named(build, model, tmp_path):
    with pytest.raises(UserError, match=r"train is 'half'; allowed: transformer, all"):
        build(train="half")
    with pytest.raises(UserError, match="has n_layers 2, but the recipe's sizes say 3"):
        build(init=str(model), sizes=DecoderSizes("world", {**SIZES.transformer, "n_layers": 3}))
    with pytest.raises(UserError, match=r"no field 'layers'; allowed: all_patch_size"):
        build(sizes=DecoderSizes("world", {"layers": 3}))
    with pytest.raises(UserError, match=r"preset is 'huge'; allowed: released, world"):
        build(sizes=DecoderSizes("huge"))
    with pytest.raises(UserError, match=r"has no decoder/config\.json, which the decoder starts from"):
        shutil.copytree(model / "image_tokenizer", tmp_path / "image_tokenizer")
        build(init=str(tmp_path))
    with pytest.raises(UserError, match="are 4 x 8 x 8, but the decoder's patches need 4 x 16 x 16"):
        build(sizes=DecoderSizes("world", {**SIZES.transformer, "all_patch_size": [4]})).begin(1)
    with pytest.raises(UserError, match="have 64 codes, the decoder 32"):
        build(sizes=DecoderSizes("world", SIZES.transformer, 32)).begin(1)
