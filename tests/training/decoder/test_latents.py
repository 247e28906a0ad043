"""Prepared latents: right numbers, restartable, shared out, drawn by number."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.data.pictures import open_pictures
from llada_uni.decoder.model import load_vae
from llada_uni.errors import UserError
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.training.decoder.distill import DistillOptions
from llada_uni.training.decoder.latents import HELD_OUT, Latents, prepare, spoil
from llada_uni.training.decoder.stage import DecoderOptions
from llada_uni.training.loop.ranks import Processes
from tests.data.test_pictures import photos
from tests.training.helpers.runs import loss_of
from tests.training.tiny_decoder import SIZES, latent_options, make_tiny_decoder


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    return make_tiny_decoder(tmp_path_factory.mktemp("model"), golden)


@pytest.fixture(scope="module")
def ready(model, tmp_path_factory):
    options = latent_options(model, tmp_path_factory.mktemp("latents"), low_quality=0.5)
    prepare(options)
    return options


def _files(options):
    return {path.name: path.read_bytes() for path in Path(options.folder).glob("*.safetensors")}


def test_what_is_stored_is_what_the_networks_give(model, tmp_path):
    options = latent_options(model, tmp_path)
    prepare(options)
    drawn = open_pictures("world", 32, "heldout").draw(random.Random(f"{options.seed}/{HELD_OUT}"), 4)
    latents, codes = Latents(options).held_out(4)
    vae, tokenizer = load_vae(model / "vae"), ImageTokenizer.from_pretrained(model / "image_tokenizer")
    for picture, found, grid in zip(drawn, latents, codes, strict=True):
        small = Image.fromarray(picture.image).resize((16, 16), Image.Resampling.BICUBIC)
        assert tuple(grid.flatten().tolist()) == tokenizer.encode(small, "raw").codes
        pixels = torch.from_numpy(picture.image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        mean = vae.encode(pixels).latent_dist.mean[0]
        expected = (mean - vae.config.shift_factor) * vae.config.scaling_factor
        torch.testing.assert_close(found[:, 0], expected, atol=2e-3, rtol=1e-3)  # kept in float16


def test_a_killed_preparation_makes_only_what_is_missing(ready):
    before = _files(ready)
    gone, kept = Path(ready.folder) / "latents-00001.safetensors", Path(ready.folder) / "latents-00000.safetensors"
    gone.unlink()
    written = kept.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"latents-00001\.safetensors is missing"):
        Latents(ready)
    prepare(ready)
    assert _files(ready) == before and kept.stat().st_mtime_ns == written
    assert sorted(before) == ["heldout.safetensors", *(f"latents-0000{i}.safetensors" for i in range(3))]


@dataclass(frozen=True)
class _Alone(Processes):
    def barrier(self) -> None:
        pass


def test_processes_share_the_shards_out(ready, model, tmp_path):
    options = latent_options(model, tmp_path, low_quality=0.5)
    prepare(options, _Alone(0, 2))
    assert sorted(_files(options)) == ["latents-00000.safetensors", "latents-00002.safetensors"]
    prepare(options, _Alone(1, 2))
    assert _files(options) == _files(ready)


def test_draws_depend_on_the_generator_alone(ready):
    latents = Latents(ready)
    x1, codes = latents.draw(random.Random(3), 5)
    again = latents.draw(random.Random(3), 5)
    assert torch.equal(x1, again[0]) and torch.equal(codes, again[1])
    assert x1.shape == (5, 4, 1, 8, 8) and x1.dtype == torch.float32
    assert codes.shape == (5, 2, 2) and codes.dtype == torch.int64
    assert not torch.equal(x1, latents.draw(random.Random(4), 5)[0])


def test_clean_only_leaves_the_spoilt_ones_out(ready, model, tmp_path):
    assert len(Latents(ready)) == 14
    assert 0 < len(Latents(ready, clean_only=True)) < 14
    options = latent_options(model, tmp_path, low_quality=1.0)
    prepare(options)
    with pytest.raises(UserError, match="no clean picture"):
        Latents(options, clean_only=True)


def test_spoilt_pictures_have_less_detail():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    spoilt = spoil(Image.fromarray(noise), random.Random(0))
    assert spoilt.size == (32, 32) and spoilt.mode == "RGB"
    assert np.asarray(spoilt).std() < 0.8 * noise.std()


def test_a_folder_made_otherwise_is_left_alone(ready, model):
    with pytest.raises(UserError, match="made with seed=77, asked for is 5"):
        prepare(latent_options(model, ready.folder, low_quality=0.5, seed=5))
    with pytest.raises(UserError, match="must be a multiple of 16 pixels"):
        latent_options(model, ready.folder, side=40).positions()


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_pictures_that_keep_their_shape_are_kept_by_shape(model, tmp_path, on_bad):
    """And a bad image among them stops the preparation, or is left out and listed beside the shard."""
    sizes = [(80, 40), (40, 80), (60, 60), (44, 40)] * 8
    folder = photos(tmp_path / "photos", sizes, bad={1, 2} if on_bad == "skip" else ())
    changes = {"source": str(folder), "side": 64, "count": 40, "shard": 20, "held_out": 8, "keep_shape": True}
    options = latent_options(model, tmp_path / "latents", **changes, split="any", on_bad=on_bad)
    prepare(options)
    latents, seen = Latents(options), set()
    for seed in range(40):
        x1, codes = latents.draw(random.Random(seed), 3)
        assert x1.shape == (3, 4, 1, 4 * codes.shape[1], 4 * codes.shape[2])
        seen.add(tuple(codes.shape[1:]))
    assert {(2, 6), (4, 4)} & seen and len(seen) > 1 and len(latents) == 40
    assert sum(len(x1) for x1, _ in latents.held_out_by_shape(99)) == 8
    listed = [line for path in Path(options.folder).glob("*.left-out.txt") for line in path.read_text().splitlines()]
    assert bool(listed) == (on_bad == "skip") and all("1.png" in line or "2.png" in line for line in listed)
    stage = DecoderOptions(options, SIZES, batch=3, evaluate=4).build(Processes(), 0)
    stage.begin(1)
    assert all(loss_of(stage, step).total.isfinite() for step in range(4))
    assert stage.eval().evaluate(0)["held_out_flow"] > 0
    distilled = DistillOptions(options, str(model), SIZES, batch=2).build(Processes(), 0)
    distilled.begin(1)
    assert loss_of(distilled, 1).total.isfinite()
    for shown in (stage, distilled):
        drawn = shown.eval().pictures(0)["drawn"]
        assert drawn.ndim == 3 and drawn.shape[1] > 100 and len(np.unique(drawn)) > 10
        assert shown.evaluate(0)["loss"] > 0
    with pytest.raises(UserError, match="position_probes are for squares"):
        DecoderOptions(options, SIZES, position_probes=0.1)


def test_a_bad_image_ends_the_preparation_by_default(model, tmp_path):
    folder = photos(tmp_path / "photos", [(60, 60)] * 6, bad={0, 1, 2, 3, 4})
    with pytest.raises(UserError, match=r"png: .*damaged"):
        prepare(latent_options(model, tmp_path / "latents", source=str(folder), split="any"))
