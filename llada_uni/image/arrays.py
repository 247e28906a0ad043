"""Images as numbers: arrays and tensors, of any usual shape and range -> 8-bit PIL images. Other ranges are refused.

Shapes: [H, W], [H, W, C], [C, H, W], any of them behind axes of length 1, and [B, ...] for several. C: 1 gray, 2 gray and
alpha, 3 RGB, 4 RGBA. Values: bool; uint8; uint16, of which 65535 is white; other whole numbers from 0 to 255 or to 65535;
floats from 0 to 1 or from 0 to 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from llada_uni.errors import UserError

NEARLY = 0.5 / 255  # half a level: so far a float may lie outside of 0..1, by rounding
COLORS, GRAYS = (3, 4), (1, 2)
RANGES = "allowed: 0 to 1, or 0 to 255"


def is_array(value: Any) -> bool:
    """Whether images may be read from it here."""
    return isinstance(value, np.ndarray | torch.Tensor)


def image_of(array: np.ndarray | torch.Tensor) -> Image.Image:
    """The one image of an array: L, LA, RGB or RGBA. UserError for several, and for shapes and values that are no image's."""
    images = images_of(array)
    if len(images) != 1:
        raise UserError(f"one image is expected, not an array of {len(images)}: {_shape(array)}")
    return images[0]


def images_of(array: np.ndarray | torch.Tensor) -> list[Image.Image]:
    """All images of an array: one, or as many as its first of four axes says. Errors as `image_of`.

    The range is looked at over all of them together, so that a dark one of a batch is not read by another scale.
    """
    first = isinstance(array, torch.Tensor)
    values = _numbers(array)
    shape = _shape(array)
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    several = list(values) if values.ndim == 4 else [values]
    if values.ndim not in (2, 3, 4) or 0 in values.shape:
        raise UserError(f"an image has the shape [H, W], [H, W, C] or [C, H, W], not {shape}")
    planes = [_channels_last(one, first, shape) for one in several]
    levels = to_levels(np.stack(planes))
    return [Image.fromarray(np.ascontiguousarray(one[..., 0] if one.shape[-1] == 1 else one)) for one in levels]


def to_levels(values: np.ndarray) -> np.ndarray:
    """The same numbers as uint8, by their type and range; see above. UserError for a range that is no image's."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError("the image's values are not all finite numbers")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if values.dtype.kind == "f":
        top = _top_of_floats(low, high)
    else:
        top = 65535.0 if values.dtype.kind == "u" and values.dtype.itemsize == 2 else _top_of_whole(low, high)
    return np.clip(np.rint(values.astype(np.float64) * (255.0 / top)), 0, 255).astype(np.uint8)


def _top_of_floats(low: float, high: float) -> float:
    """What is white."""
    if low >= -NEARLY and high <= 1 + NEARLY:
        return 1.0
    if low < -NEARLY and low >= -1 - NEARLY and high <= 1 + NEARLY:
        raise UserError(
            f"the image's values go from {low:.4g} to {high:.4g}; {RANGES}: if they are meant to go from -1 to 1, give "
            "(x + 1) / 2; if they overshoot by scaling, clip them"
        )
    if low >= -0.5 and 2 <= high <= 255.5:
        return 255.0
    raise UserError(f"the image's values go from {low:.4g} to {high:.4g}; {RANGES}")


def _top_of_whole(low: float, high: float) -> float:
    if low < 0 or high > 65535:
        raise UserError(f"the image's values go from {low:.0f} to {high:.0f}; allowed: 0 to 255, or 0 to 65535")
    return 255.0 if high <= 255 else 65535.0


def _numbers(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        if array.is_meta:
            raise UserError("an image is an array of numbers, not a tensor on the device meta, which has none")
        plain = array.detach().cpu()
        array = (plain.float() if plain.is_floating_point() else plain).numpy()
    if array.dtype.kind not in "bufi":
        raise UserError(f"an image is an array of numbers, not of {array.dtype}")
    return array


def _channels_last(values: np.ndarray, first: bool, shape: str) -> np.ndarray:
    """[H, W, C] of one image. first: where both ends could be channels, the first are (tensors; arrays: the last)."""
    if values.ndim == 3 and values.shape[0] == 1:  # no image is one pixel high
        values = values[0]
    if values.ndim == 2:
        return values[..., None]
    ahead = values.shape[0] in COLORS
    behind = values.shape[-1] in (*GRAYS, *COLORS)
    if ahead and (first or not behind):
        return np.moveaxis(values, 0, -1)
    if behind:
        return values
    raise UserError(f"an image has 1 to 4 channels, first or last: [H, W], [H, W, C] or [C, H, W], not {shape}")


def _shape(array: np.ndarray | torch.Tensor) -> str:
    return f"[{', '.join(map(str, array.shape))}]"
