"""Images at the tasks' door: whatever holds one, one or several, and results of ours, give the same codes and answers."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from llada_uni.results import ChatResult, EndEvent, ImageEvent, ImageResult, PartialImage
from llada_uni.tasks.checks import check_pictures, open_picture
from tests.tiny_model import make_tiny_model

PICTURE = Image.fromarray(np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8))
ARRAY = np.asarray(PICTURE)
CODES = ImageCodes((1, 2, 3, 4), 2, 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden):
    return UniModel.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden), device="cpu")


@pytest.mark.parametrize("given", [ARRAY, torch.from_numpy(ARRAY.copy()).permute(2, 0, 1) / 255, [ARRAY], ARRAY[None]])
def test_tasks_take_arrays(model, given):
    want = model.understand(PICTURE, "what?", seed=1)
    assert model.understand(given, "what?", seed=1).text == want.text
    assert model.edit_image(given, "a dog", seed=2).codes == model.edit_image(PICTURE, "a dog", seed=2).codes


def test_encoding_and_conversations_take_arrays(model):
    assert model.encode_image(ARRAY) == model.encode_image(PICTURE)
    said = [{"role": "user", "content": [ARRAY, "what?"]}]
    same = [{"role": "user", "content": [PICTURE, "what?"]}]
    assert model.chat(said, seed=1, modalities="text").text == model.chat(same, seed=1, modalities="text").text


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16, np.int64, np.float32])
def test_a_mask_may_be_an_array_of_labels(model, kind):
    white = np.zeros((32, 32), kind)
    white[:16, :16] = 1
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 16))
    want = model.inpaint(PICTURE, mask, "a dog", seed=3)
    for given in (white, white[None], torch.from_numpy(white.astype(np.float32 if kind is np.uint16 else kind))[None, None]):
        assert model.inpaint(ARRAY, given, "a dog", seed=3).codes == want.codes


def test_results_of_ours_are_their_codes():
    event = ImageEvent(PICTURE, CODES, 1)
    answer = ChatResult(("see", event), EndEvent("finished"))
    for given in (ImageResult(PICTURE, CODES, "a cat", 1), event, answer, CODES):
        assert open_picture(given) == CODES and check_pictures(given) == [CODES]
    assert open_picture(PartialImage(0, PICTURE)).tobytes() == PICTURE.tobytes()
    with pytest.raises(UserError, match="an answer with 2"):
        open_picture(ChatResult((event, event), EndEvent("finished")))


def test_several_images():
    file = io.BytesIO()
    PICTURE.save(file, "PNG")
    for given in ([PICTURE, CODES], (PICTURE, CODES), (one for one in (PICTURE, CODES))):
        opened = check_pictures(given)
        assert opened[0].tobytes() == PICTURE.tobytes() and opened[1] == CODES
    assert [one.size for one in check_pictures(np.stack([ARRAY, ARRAY]))] == [(32, 32)] * 2
    assert [one.size for one in check_pictures(file)] == [(32, 32)]


@pytest.mark.parametrize("given", [None, [], (), 7, {"image": PICTURE}, {}])
def test_no_image(given):
    with pytest.raises(UserError, match="at least one picture is needed: a path, bytes"):
        check_pictures(given)
