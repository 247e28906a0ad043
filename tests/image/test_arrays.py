"""Arrays and tensors as images: every usual shape and range gives the same pixels, any other is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.image.arrays import image_of, images_of
from llada_uni.image.reader import open_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
RGB[0, 0], RGB[0, 1] = 0, 255
GRAY = RGB[..., 0]
PIXELS = torch.from_numpy(RGB).permute(2, 0, 1)


def shapes() -> dict[str, tuple[object, np.ndarray]]:
    """name -> (what is given, the RGB that it shows)."""
    gray = np.repeat(GRAY[..., None], 3, 2)
    clear = np.dstack([RGB, np.full((6, 9), 255, np.uint8)])
    return {
        "H W C": (RGB, RGB),
        "C H W": (RGB.transpose(2, 0, 1), RGB),
        "1 H W C": (RGB[None], RGB),
        "1 1 H W C": (RGB[None, None], RGB),
        "H W": (GRAY, gray),
        "1 H W": (GRAY[None], gray),
        "H W 1": (GRAY[..., None], gray),
        "RGBA": (clear, RGB),
        "tensor": (PIXELS, RGB),
        "tensor 1 C H W": (PIXELS[None], RGB),
        "tensor H W C": (PIXELS.permute(1, 2, 0), RGB),
        "tensor H W": (PIXELS[0], gray),
        "uint16": (RGB.astype(np.uint16) * 257, RGB),
        "big endian": (RGB.astype(">u2") * 257, RGB),
        "int64 of bytes": (RGB.astype(np.int64), RGB),
        "int32 of 16 bits": (RGB.astype(np.int32) * 257, RGB),
        "0 to 1": (RGB / 255, RGB),
        "0 to 1 float16": ((RGB / 255).astype(np.float16), RGB),
        "0 to 1 tensor": (PIXELS / 255, RGB),
        "0 to 255": (RGB.astype(np.float32), RGB),
        "0 to 255 tensor": (PIXELS.float(), RGB),
        "with a gradient": ((PIXELS / 255).requires_grad_(), RGB),
        "bool": (GRAY > 127, np.repeat(((GRAY > 127) * np.uint8(255))[..., None], 3, 2)),
        "strided": (RGB[:, ::-1], RGB[:, ::-1]),
    }


@pytest.mark.parametrize("name", shapes())
def test_every_shape_and_range_shows_the_same(name):
    given, right = shapes()[name]
    opened = open_image(given)
    assert opened.mode == "RGB" and np.array_equal(np.asarray(opened), right)


def test_bfloat16_is_as_near_as_it_can_be():
    seen = np.asarray(open_image((PIXELS / 255).bfloat16())).astype(int)
    assert np.abs(seen - RGB).max() <= 1


def test_transparent_shows_white():
    clear = np.dstack([RGB, np.zeros((6, 9), np.uint8)])
    assert np.asarray(open_image(clear)).min() == 255


def test_a_batch_is_several_images_of_one_scale():
    dark = np.stack([RGB / 255, np.zeros((6, 9, 3)) + 0.5])
    first, second = images_of(dark)
    assert np.array_equal(np.asarray(first), RGB) and second.getpixel((0, 0)) == (128, 128, 128)
    with pytest.raises(UserError, match=r"not an array of 2: \[2, 6, 9, 3\]"):
        image_of(dark)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (RGB / 127.5 - 1, r"from -1 to 1, give \(x \+ 1\) / 2"),
        (PIXELS / 127.5 - 1, r"from -1 to 1, give \(x \+ 1\) / 2"),
        (RGB / 255 * 1.3, "from 0 to 1.3; allowed"),
        (RGB.astype(float) * 9, "from 0 to 2295"),
        (RGB.astype(np.int32) - 9, "from -9 to 246"),
        (np.full((4, 4), np.nan), "not all finite"),
        (np.zeros((6, 4, 5)), "1 to 4 channels"),
        (np.zeros((2, 4, 4)), None),
        (np.zeros(4), r"not \[4\]"),
        (np.zeros((0, 4, 3)), r"not \[0, 4, 3\]"),
        (np.zeros((2, 2, 2, 2, 2)), r"not \[2, 2, 2, 2, 2\]"),
        (np.array([["a", "b"], ["c", "d"]]), "array of numbers"),
        (np.zeros((4, 4), complex), "array of numbers"),
        (torch.zeros(3, 4, 4, device="meta"), "device meta"),
    ],
)
def test_what_is_no_image_is_refused(given, words):
    if words is None:
        assert open_image(given).size == (4, 2), "two rows of four pixels of four channels"
        return
    with pytest.raises(UserError, match=words):
        open_image(given)
