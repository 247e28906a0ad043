"""Images of kinds that a model does not know: told with the edit, at the price of one run of the vision transformer."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from tests.tiny_model import make_tiny_model

IMAGES = [Image.new("RGB", (32, 32), color) for color in ("red", "navy")]
MASK = Image.new("L", (32, 32), 255)


@pytest.fixture
def model(tmp_path, golden):
    folder = make_tiny_model(tmp_path / "tiny", golden)

    def opened(familiar: float | None) -> UniModel:
        path = folder / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "familiar": familiar}))
        return UniModel.from_pretrained(folder, "cpu")

    return opened


def test_it_is_told_once_an_image_and_in_one_run(model):
    uni, seen = model(1.0), []
    vision = uni.parts.image_tokenizer.vision
    vision.register_forward_hook(lambda module, given, found: seen.append(found))
    result = uni.edit_image(IMAGES, "a dog", seed=1)
    assert len(seen) == 2, "one run for each image"
    assert sum("not trained on images of this kind" in notice for notice in result.notices) == 2
    filled = uni.inpaint(IMAGES[0], MASK, "a dog", seed=1)
    assert len(seen) == 3 and any("not trained on images of this kind" in notice for notice in filled.notices)


def test_the_result_does_not_depend_on_it(model):
    drawn = [model(familiar).edit_image(IMAGES, "a dog", seed=1) for familiar in (None, 0.0, 1.0)]
    assert len({one.image.tobytes() for one in drawn}) == 1
    assert not drawn[0].notices and not drawn[1].notices, "nobody can tell, or it is a known one"


def test_codes_are_not_judged(model):
    codes = ImageCodes(tuple(range(16)), 4, 4)
    assert not model(1.0).edit_image(codes, "a dog", seed=1).notices


def test_nearness_comes_with_the_same_codes(model):
    tokenizer = model(None).parts.image_tokenizer
    codes, nearness = tokenizer.encode_with_nearness(IMAGES[0], "raw")
    assert codes == tokenizer.encode(IMAGES[0], "raw") and -1 <= nearness <= 1
