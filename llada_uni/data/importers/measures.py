"""What a program can measure of an image, in words that a template may use: brightness and dominant colors.

An import whose templates name one of these fields opens its images; any other import does not. All measures stay true when an
image is mirrored, so that training may mirror it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

_SIDE = 32  # pixels; measured on a small copy, as the eye would at a glance
_DARK, _BRIGHT = 95.0, 140.0  # mean luminance, 0 to 255
_GRAY, _BLACK, _WHITE = 0.16, 0.22, 0.80
COLORS = ("black", "gray", "white", "red", "brown", "orange", "yellow", "green", "blue", "purple", "pink")
# Upper end of the hue of each color, in degrees; brown and pink are split off by brightness below.
_HUES = (
    (14, "red"),
    (40, "orange"),
    (66, "yellow"),
    (165, "green"),
    (258, "blue"),
    (292, "purple"),
    (336, "pink"),
    (360, "red"),
)


def _small(image: Image.Image) -> np.ndarray:
    """uint8 [32, 32, 3]."""
    return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))


def brightness(image: Image.Image) -> str:
    """ "dark", "medium" or "bright": by the mean luminance (ITU-R BT.601)."""
    mean = float(np.asarray(_small(image), np.float64).mean((0, 1)) @ (0.299, 0.587, 0.114))
    return "dark" if mean < _DARK else "bright" if mean > _BRIGHT else "medium"


def color_names(pixels: np.ndarray) -> np.ndarray:
    """Indices into COLORS [...] of uint8 pixels [..., 3]: by hue, where there is enough of it, else by brightness."""
    values = pixels.astype(np.float64) / 255
    most, least = values.max(-1), values.min(-1)
    spread = most - least
    saturation = spread / np.maximum(most, 1e-9)
    red, green, blue = np.moveaxis(values, -1, 0)
    safe = np.maximum(spread, 1e-9)
    hue = np.where(
        most == red, (green - blue) / safe % 6, np.where(most == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    )
    ends = np.array([end for end, _ in _HUES])
    names = np.array([COLORS.index(name) for _, name in _HUES])
    found = names[np.searchsorted(ends, hue * 60, side="right").clip(max=len(ends) - 1)]
    warm = np.isin(found, [COLORS.index("orange"), COLORS.index("red"), COLORS.index("yellow")])
    found = np.where(
        warm & (hue * 60 < 60) & (hue * 60 > 5) & ((most < 0.62) | (saturation < 0.45)), COLORS.index("brown"), found
    )
    found = np.where((found == COLORS.index("red")) & (saturation < 0.45), COLORS.index("pink"), found)
    found = np.where(saturation < _GRAY, COLORS.index("gray"), found)
    found = np.where((saturation < _GRAY) & (most > _WHITE), COLORS.index("white"), found)
    return np.where(most < _BLACK, COLORS.index("black"), found)


def _dominant(pixels: np.ndarray) -> str:
    return COLORS[int(np.bincount(color_names(pixels).ravel(), minlength=len(COLORS)).argmax())]


def color(image: Image.Image) -> str:
    """The color, one of COLORS, that most of the image has."""
    return _dominant(_small(image))


def top_color(image: Image.Image) -> str:
    """The color of most of the upper quarter."""
    return _dominant(_small(image)[: _SIDE // 4])


def bottom_color(image: Image.Image) -> str:
    """The color of most of the lower quarter."""
    return _dominant(_small(image)[-_SIDE // 4 :])


def center_color(image: Image.Image) -> str:
    """The color of most of the middle (half the width, half the height)."""
    quarter = _SIDE // 4
    return _dominant(_small(image)[quarter:-quarter, quarter:-quarter])


MEASURES: dict[str, Callable[[Image.Image], str]] = {
    "brightness": brightness,
    "color": color,
    "top_color": top_color,
    "bottom_color": bottom_color,
    "center_color": center_color,
}
"""By the name of the template field."""
