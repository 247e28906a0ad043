"""ImageCodes: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import numpy as np
import pytest

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes


def test_keeps_raster_order():
    codes = ImageCodes([5, 0, 7, 1, 2, 3], 2, 3)
    assert codes.codes == (5, 0, 7, 1, 2, 3)
    assert codes.rows() == [[5, 0, 7], [1, 2, 3]]
    assert len(codes) == 6


def test_takes_numpy_integers_and_is_hashable():
    codes = ImageCodes(np.arange(4), np.int64(2), 2)
    assert codes == ImageCodes((0, 1, 2, 3), 2, 2)
    assert hash(codes) == hash(ImageCodes((0, 1, 2, 3), 2, 2))
    assert all(type(code) is int for code in codes.codes)


@pytest.mark.parametrize(
    ("codes", "height", "width", "words"),
    [
        ((1, 2, 3), 2, 2, "takes 4 image codes, 3 were given"),
        ((1, -2), 1, 2, "start at 0, -2"),
        ((1.5, 2), 1, 2, "whole numbers"),
        (("1", "2"), 1, 2, "whole numbers"),
        ((), 0, 4, "at least one row"),
        ((1,), 1.0, 1, "whole numbers"),
    ],
)
def test_refuses(codes, height, width, words):
    with pytest.raises(UserError, match=words):
        ImageCodes(codes, height, width)


def test_range_is_the_codebooks():
    codes = ImageCodes((0, 63), 1, 2)
    assert codes.check_range(64) is codes
    with pytest.raises(UserError, match="image code 63 is out of range: this model has codes 0 to 62"):
        codes.check_range(63)


def test_json_round_trip():
    codes = ImageCodes((3, 1), 2, 1)
    assert ImageCodes.from_json(codes.to_json()) == codes


@pytest.mark.parametrize(
    "data", [{}, {"height": 1, "width": 1}, [1], {"height": 1, "width": 1, "codes": "7"}]
)
def test_json_refuses(data):
    with pytest.raises(UserError):
        ImageCodes.from_json(data)
