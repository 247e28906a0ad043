"""Does a tokenizer know such images: the shipped model knows its world and not photographs, and says so."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image, ImageFilter

from llada_uni.cli import main
from llada_uni.data.round_trip import RoundTrip, round_trip, small_decoder
from llada_uni.data.sources import open_source
from llada_uni.errors import UserError
from llada_uni.files.shipped import MODEL, shipped
from tests.data.helpers import drawing, small_model, write_records

WORLD = shipped("models") / MODEL


def photographs(folder, count=8):
    """Images with the statistics of photographs: soft patches of muted color."""
    rng = random.Random(0)
    write_records(folder, [drawing("x", f"{n}.png") for n in range(count)])
    for number in range(count):
        image = Image.new("RGB", (12, 12))
        image.putdata([tuple(rng.randrange(40, 200) for _ in range(3)) for _ in range(144)])
        image.resize((96, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(5)).save(folder / f"{number}.png")
    return folder


def test_the_shipped_model_knows_its_world():
    trip = round_trip(open_source("world:40:9", 96), WORLD, 6)
    assert trip.images == 6 and trip.known is True and trip.psnr > 25 and trip.own == 1.0
    assert 1 < trip.used <= trip.codebook and "does not know" not in str(trip)


def test_it_does_not_know_photographs_and_check_and_extract_say_so(tmp_path, capsys):
    folder = photographs(tmp_path / "in")
    trip = round_trip(open_source(folder), WORLD)
    assert trip.images == 8 and trip.known is False
    assert main(["data", "check", str(folder), "--model", str(WORLD), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["round_trip"]["known"] is False
    assert main(["data", "extract", str(folder), str(tmp_path / "out"), "--model", str(WORLD)]) == 0
    said = capsys.readouterr().err
    assert "warning: 8 images became" in said and "This tokenizer does not know such images" in said


def test_without_a_decoder_nothing_is_claimed(tmp_path, golden):
    model = small_model(tmp_path / "model", golden)
    assert not small_decoder(model)
    trip = round_trip(open_source(photographs(tmp_path / "in", 4)), model)
    assert trip.known is None and trip.psnr is None and "no decoder" in str(trip)
    with pytest.raises(UserError, match="there is no image_tokenizer in"):
        round_trip(open_source(tmp_path / "in"), tmp_path)


def test_too_few_images_prove_nothing():
    assert RoundTrip(3, 3, 64, 0.5, 10.0, 0.3).known is None
    assert RoundTrip(4, 3, 64, 0.5, 10.0, 1.0).known is False
