"""One tiny model directory, and a picture, for all adapters."""

from __future__ import annotations

import pytest
from PIL import Image

from llada_uni.model import UniModel
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("adapters") / "tiny", golden)


@pytest.fixture(scope="session")
def model(folder):
    return UniModel.from_pretrained(folder, device="cpu")


@pytest.fixture
def picture():
    image = Image.new("RGB", (32, 32), (250, 240, 120))
    image.paste((20, 90, 200), (0, 0, 16, 16))
    return image
