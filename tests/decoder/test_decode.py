"""Codes to pictures: equal to the recorded numbers, seeds, missing parts."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llada_uni.decoder.decode import ImageDecoder
from llada_uni.decoder.model import load_transformer, load_vae
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.tasks.parts import find_model

CLOSE = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(scope="module")
def recorded(golden):
    return load_file(golden / "decode.safetensors")


@pytest.fixture(scope="module")
def decoder(golden):
    return ImageDecoder.from_pretrained(golden)


@pytest.fixture(scope="module")
def codes(recorded):
    height, width = recorded["grid"].tolist()
    return ImageCodes(tuple(recorded["token_ids"].tolist()), height, width)


def test_condition(decoder, codes, recorded):
    torch.testing.assert_close(decoder.condition(codes)[0], recorded["condition"], **CLOSE)


def test_velocity(decoder, codes, recorded):
    found = decoder.velocity(
        "base", recorded["noise"], recorded["velocity.t"].item(), decoder.condition(codes)
    )
    torch.testing.assert_close(found[0], recorded["velocity.decoder"], **CLOSE)


@pytest.mark.parametrize("steps", [10, 50])
def test_base_latents(decoder, codes, recorded, steps):
    found = decoder.latents(codes, "base", steps, noise=recorded["noise"])
    torch.testing.assert_close(found.float(), recorded[f"latents.decoder.{steps}"], **CLOSE)


def test_turbo_latents(decoder, codes, recorded):
    renoise = recorded["renoise.decoder-turbo.8"].unbind(0)
    found = decoder.latents(codes, "turbo", 8, noise=recorded["noise"], renoise=renoise)
    torch.testing.assert_close(found.float(), recorded["latents.decoder-turbo.8"], **CLOSE)


def test_pixels(decoder, recorded):
    found = decoder.pixels(recorded["latents.decoder.10"])
    torch.testing.assert_close(found, recorded["pixels.decoder.10"], **CLOSE)


def test_picture_is_the_pixels_cut_to_whole_levels(decoder, codes):
    picture = decoder.decode(codes, "base", 3, torch.Generator().manual_seed(5))
    assert picture.mode == "RGB"
    assert picture.size[::-1] == decoder.size(codes, "base") == (codes.height * 8, codes.width * 8)
    pixels = decoder.pixels(decoder.latents(codes, "base", 3, torch.Generator().manual_seed(5)))
    expected = (pixels[0] * 255).floor().permute(1, 2, 0).numpy().astype(np.uint8)
    assert np.array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_the_multiplier_sets_the_size_and_2_is_the_usual_one(decoder, codes, multiplier):
    picture = decoder.decode(codes, "turbo", 2, torch.Generator().manual_seed(5), multiplier=multiplier)
    size = decoder.size(codes, "turbo", multiplier)
    assert picture.size[::-1] == size == (codes.height * 4 * multiplier, codes.width * 4 * multiplier)
    usual = decoder.decode(codes, "turbo", 2, torch.Generator().manual_seed(5))
    assert (picture.tobytes() == usual.tobytes()) == (multiplier == 2)
    many = decoder.decode_many([codes], "turbo", 2, [torch.Generator().manual_seed(5)], multiplier=multiplier)
    assert many[0].tobytes() == picture.tobytes()


@pytest.mark.parametrize("variant", ["turbo", "base"])
def test_same_seed_same_picture(decoder, codes, variant):
    first, again, other = (
        decoder.decode(codes, variant, 3, torch.Generator().manual_seed(seed)).tobytes() for seed in (1, 1, 2)
    )
    assert first == again != other
    assert decoder.decode(codes, variant, 3).tobytes() == decoder.decode(codes, variant, 3).tobytes()


def test_steps_are_reported(decoder, codes):
    seen = []
    decoder.decode(codes, "turbo", on_step=lambda *step: seen.append(step))
    assert seen == [(i, 8) for i in range(1, 9)]


def test_parts_in_memory(golden, decoder, codes):
    mine = ImageDecoder(
        sigvq=SigVQ.from_pretrained(golden / "image_tokenizer" / "sigvq_embedding.pt"),
        transformers={"turbo": load_transformer(golden / "decoder-turbo")},
        vae=load_vae(golden / "vae"),
    )
    assert mine.variants == ("turbo",)
    assert mine.decode(codes, steps=2).tobytes() == decoder.decode(codes, steps=2).tobytes()
    with pytest.raises(UserError, match="this model has no decoder/"):
        mine.decode(codes, "base")


def test_parts_stay_loaded(golden, codes):
    decoder = ImageDecoder.from_pretrained(golden)
    decoder.decode(codes, steps=1)
    parts = decoder.sigvq, decoder.vae, decoder.transformer("turbo")
    decoder.decode(codes, steps=1)
    assert all(
        a is b for a, b in zip(parts, (decoder.sigvq, decoder.vae, decoder.transformer("turbo")), strict=True)
    )


def test_codes_out_of_range(decoder):
    with pytest.raises(UserError, match="image code 64 is out of range: this model has codes 0 to 63"):
        decoder.decode(ImageCodes((0, 64), 1, 2))


def test_unknown_variant_and_too_few_steps(decoder, codes):
    with pytest.raises(UserError, match="unknown decoder 'fast'; allowed: turbo, base"):
        decoder.decode(codes, "fast")
    with pytest.raises(UserError, match="at least 2 steps"):
        decoder.decode(codes, "base", 1)
    with pytest.raises(UserError, match="at least 1 step"):
        decoder.decode(codes, "turbo", 0)


def test_missing_parts_only_matter_where_needed(golden, tmp_path, codes):
    with pytest.raises(UserError, match="there is no model directory"):
        ImageDecoder.from_pretrained(tmp_path / "none")
    place = tmp_path / "model"
    for part in ("image_tokenizer", "decoder-turbo", "vae"):
        shutil.copytree(golden / part, place / part)
    decoder = ImageDecoder.from_pretrained(place)
    assert decoder.variants == ("turbo",)
    assert decoder.decode(codes, "turbo", 1).size == (codes.width * 8, codes.height * 8)
    with pytest.raises(UserError, match=r"this model has no decoder/ \(the base decoder\)"):
        decoder.decode(codes, "base")
    shutil.rmtree(place / "vae")
    with pytest.raises(UserError, match=r"this model has no vae/"):
        ImageDecoder.from_pretrained(place).decode(codes, "turbo", 1)


def test_parts_of_different_models(golden, decoder, codes):
    mixed = ImageDecoder(
        sigvq=SigVQ(64, 48).eval(), transformers={"turbo": decoder.transformer("turbo")}, vae=decoder.vae
    )
    with pytest.raises(UserError, match="48 wide, but the turbo decoder takes 32"):
        mixed.decode(codes)


def _generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _distance(first, second):
    return np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int)).max()


@pytest.mark.parametrize(("variant", "steps"), [("turbo", 3), ("base", 4)])
def test_many_pictures_equal_each_alone(decoder, codes, variant, steps):
    wide = ImageCodes(codes.codes[:6], 2, 3)
    pictures = [codes, wide, ImageCodes(codes.codes[::-1], codes.height, codes.width), codes]
    seen = []
    many = decoder.decode_many(
        pictures, variant, steps, _generators(1, 2, 3, 4), on_step=lambda *step: seen.append(step), batch=2
    )
    alone = [decoder.decode(one, variant, steps, g) for one, g in zip(pictures, _generators(1, 2, 3, 4), strict=True)]
    # A batch may add up in another order: a value on the border of two levels falls on the one or the other.
    assert [picture.size for picture in many] == [picture.size for picture in alone]
    assert max(_distance(a, b) for a, b in zip(many, alone, strict=True)) <= 1
    each = steps if variant == "turbo" else steps - 1
    assert seen == [(i + 1, 3 * each) for i in range(3 * each)]  # two groups of one size, one of the other


def test_many_pictures_need_as_many_generators(decoder, codes):
    assert decoder.decode_many([]) == []
    assert decoder.decode_many([codes], steps=2)[0].tobytes() == decoder.decode(codes, steps=2).tobytes()
    with pytest.raises(UserError, match="2 pictures need as many generators, not 1"):
        decoder.decode_many([codes, codes], generators=_generators(1))


def test_offload_keeps_one_large_part_and_the_same_picture(golden, decoder, codes):
    frugal = ImageDecoder.from_pretrained(golden, offload=True)
    latents = frugal.latents(codes, steps=2)
    assert set(frugal._transformers) == {"turbo"} and frugal._vae is None
    frugal.pixels(latents)
    assert not frugal._transformers and frugal._vae is not None
    frugal.latents(codes, "base", 2)
    assert set(frugal._transformers) == {"base"} and frugal._vae is None
    assert frugal.decode(codes, steps=2).tobytes() == decoder.decode(codes, steps=2).tobytes()


def test_offload_never_drops_parts_that_were_given(golden, codes):
    parts = {"turbo": load_transformer(golden / "decoder-turbo")}
    vae = load_vae(golden / "vae")
    sigvq = SigVQ.from_pretrained(golden / "image_tokenizer" / "sigvq_embedding.pt")
    frugal = ImageDecoder(sigvq=sigvq, transformers=parts, vae=vae, offload=True)
    frugal.decode(codes, steps=1)
    assert frugal.transformer("turbo") is parts["turbo"] and frugal.vae is vae


def test_tiles_only_above_their_size(golden, decoder, codes):
    latents = decoder.latents(codes, "base", 3)
    whole = decoder.pixels(latents)
    side = max(whole.shape[-2:])
    assert torch.equal(ImageDecoder.from_pretrained(golden, tile=side).pixels(latents), whole)
    tiled = ImageDecoder.from_pretrained(golden, tile=side // 2).pixels(latents)
    assert tiled.shape == whole.shape and not torch.equal(tiled, whole)


def test_tiles_of_the_shipped_vae_show_the_same_picture():
    decoder = ImageDecoder.from_pretrained(find_model(None), tile=64)
    nothing, fox = (120, 128) * 3, (120, 128, 120, 129, 120, 128)  # colors and styles below places and things
    rows = ((0, 9, 1, 9, 2, 9), nothing, (3, 9, 4, 12, 5, 9), fox, (6, 9, 7, 9, 8, 9), nothing)
    latents = decoder.latents(ImageCodes(sum(rows, ()), 6, 6), steps=2)
    tiled = decoder.pixels(latents)
    decoder.tile = 192
    assert tiled.shape == (1, 3, 192, 192)
    assert (tiled - decoder.pixels(latents)).square().mean().sqrt() < 0.04  # 28 dB: the norms see other surroundings


def test_the_size_is_known_without_loading(golden, codes):
    decoder = ImageDecoder.from_pretrained(golden)
    assert decoder.size(codes, "base") == (codes.height * 8, codes.width * 8)
    assert decoder._vae is None and not decoder._transformers
