"""Drafts of codes: size, neighbors, keeping in a model directory, and what cannot be drawn or read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.image.drafts import Drafter

CODES = ImageCodes((4, 0, 1, 3, 2, 4), 2, 3)


def drafter() -> Drafter:
    torch.manual_seed(0)
    return Drafter(5, 8, 4).eval()


def test_a_draft_has_the_size_of_the_image_and_equals_the_network():
    network = drafter()
    drawn = network.draw(CODES, 4)
    assert drawn.size == (12, 8) and network.draw(CODES, 16).size == (48, 32)
    with torch.no_grad():
        truth = network(torch.tensor([[[4, 0, 1], [3, 2, 4]]]))[0].clamp(0, 1).permute(1, 2, 0) * 255
    assert np.abs(np.asarray(drawn) - truth.numpy()).max() <= 0.5 + 1e-3


def test_a_code_shows_in_its_own_square_most_and_not_beyond_its_neighbors():
    network = drafter()
    codes = torch.zeros(1, 9, 9, dtype=torch.int64)
    other = codes.clone()
    other[0, 4, 4] = 3
    with torch.no_grad():
        changed = (network(other) - network(codes))[0].abs().amax(0).unflatten(0, (9, 4)).unflatten(2, (9, 4)).amax((1, 3))
    assert changed.argmax() == 4 * 9 + 4
    outside = torch.ones(9, 9, dtype=torch.bool)
    outside[2:7, 2:7] = False
    assert changed[outside].max() == 0


def test_kept_in_a_model_directory(tmp_path):
    drafter().save_pretrained(tmp_path, torch.float32)
    assert Drafter.from_pretrained(tmp_path).draw(CODES, 4).tobytes() == drafter().draw(CODES, 4).tobytes()
    drafter().save_pretrained(tmp_path)
    apart = np.asarray(Drafter.from_pretrained(tmp_path).draw(CODES, 4), int) - np.asarray(drafter().draw(CODES, 4), int)
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize(
    "change", [{"side": 0}, {"width": "8"}, {"codebook": 2**40}, {"width": 2**15, "side": 2**15}, {"side": True}]
)
def test_a_config_of_no_network_is_refused(tmp_path, change):
    drafter().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match="describes no possible network"):
        Drafter.from_pretrained(tmp_path)


def test_codes_and_weights_of_another_model(tmp_path):
    with pytest.raises(UserError, match="out of range"):
        drafter().draw(ImageCodes((5,), 1, 1), 4)
    drafter().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"codebook": 6}))
    with pytest.raises(UserError, match="embedding"):
        Drafter.from_pretrained(tmp_path)
