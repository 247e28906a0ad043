"""The autoencoder's stage: training, the measured scale of its latents, going on from a given one."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import AutoencoderKL

from llada_uni.errors import UserError
from llada_uni.training.decoder.vae import VaeOptions, VaeSizes
from llada_uni.training.loop.prefetch import seeded
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from llada_uni.training.tokenizer.picture_batches import PictureOptions
from tests.data.test_pictures import photos
from tests.training.helpers.runs import loss_of


def tiny_options(**changes) -> VaeOptions:
    return VaeOptions(
        **{
            "pictures": PictureOptions(side=32, count=4, shrunk=0.0, noisy=False),
            "sizes": VaeSizes(channels=[8, 16], layers=1, latent=4, groups=4),
            "crop": 16,
            "whole_from": 25,
            "evaluate_pictures": 16,
            **changes,
        }
    )


def test_training_lowers_the_loss_and_measures_the_latents(tmp_path):
    stage = tiny_options().build(Processes(), 0)
    loop = LoopOptions(steps=30, lr=3e-3, warmup=5, log_every=5, evaluate_every=30, tensorboard=False)
    first = loss_of(stage)
    run(stage, loop, tmp_path, 0)
    last = loss_of(stage)
    assert last.total.item() < 0.8 * first.total.item()
    vae = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    images, _ = stage.batches.draw(random.Random(9), 32)
    with torch.no_grad():
        latents = (vae.encode(images).latent_dist.mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert abs(latents.mean().item()) < 0.15 and abs(latents.std().item() - 1) < 0.15


def test_crops_then_whole_pictures():
    stage = tiny_options().build(Processes(), 0)
    assert stage.batch(0, 0, seeded(0, 0, 0)).shape == (4, 3, 16, 16)
    assert stage.batch(25, 0, seeded(0, 25, 0)).shape == (1, 3, 32, 32)


def test_going_on_from_a_given_one_keeps_its_scale(tmp_path):
    first = tiny_options().build(Processes(), 0)
    first.vae.register_to_config(shift_factor=0.1159, scaling_factor=0.3611)
    first.vae.save_pretrained(tmp_path / "given")
    second = tiny_options(init=str(tmp_path / "given")).build(Processes(), 1)
    second.save(tmp_path / "model", second.state_dict())
    saved = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    assert (saved.config.shift_factor, saved.config.scaling_factor) == (0.1159, 0.3611)
    for name, tensor in first.vae.state_dict().items():
        assert torch.equal(tensor, saved.state_dict()[name])


def test_pictures_that_keep_their_shape_are_learned_and_measured(tmp_path):
    folder = photos(tmp_path, [(80, 40), (40, 80), (60, 60), (44, 40)] * 6)
    pictures = PictureOptions(source=str(folder), side=32, count=4, shrunk=0.0, noisy=False)
    stage = tiny_options(keep_shape=True, pictures=pictures, crop=28).build(Processes(), 0)
    seen = {tuple(stage.batch(step, 0, seeded(0, step, 0)).shape[2:]) for step in range(40)}
    whole = {shape for shape in seen if max(shape) > 28}
    assert len(whole) > 2 and all(side % 4 == 0 for shape in seen for side in shape)
    assert {shape for shape in seen if max(shape) <= 28} >= {(28, 28)}
    assert loss_of(stage, 0).weight == 4 and loss_of(stage, 30).total.isfinite()
    assert stage.eval().evaluate(0)["heldout_psnr"] > 0
    assert stage.pictures(0)["reconstructions"].dtype == "uint8"
    stage.save(tmp_path / "model", stage.state_dict())
    with pytest.raises(UserError, match=r"keep_shape needs pictures\.shrunk: 0"):
        tiny_options(keep_shape=True, pictures=PictureOptions(side=32, count=4)).build(Processes(), 0)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="crop 15 must be a multiple of 2, at most 32"):
        tiny_options(crop=15).build(Processes(), 0)
    with pytest.raises(UserError, match="no autoencoder in nowhere"):
        tiny_options(init="nowhere").build(Processes(), 0)
