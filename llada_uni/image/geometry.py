"""Sizes: to which height and width an image is scaled and cropped before it becomes codes.

Height and width in pixels + the settings of a model directory -> `understanding_crop` (keeps the shape) or `editing_crop`
(one of a list of sizes). Pure arithmetic, which preprocessing, masks and checks share. Sizes are (height, width), except in
`editing_sizes`, which lists (width, height) as the published code does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from llada_uni.errors import UserError

FITS = ("auto", "crop", "resize")  # how an image is brought to the grid of an edit
LARGE = 2  # times the side of that grid: a larger image is scaled down first, with "auto"


@dataclass(frozen=True)
class Preprocessing:
    """How pictures are scaled and normalized; read from `preprocessor_config.json`.

    The first four fields are the released file's own. The others are our optional keys; their defaults are
    the released numbers (arXiv:2604.20796; pixels are areas, cells are squares of `size_factor` px), and
    `edit_scale` is explained at `crop_for_editing`. A model for squares of 64 px only would set understand_*
    to 4000, 4200 and 4200: with exactly 4096 rounding decides whether some sides give 64 or 32.
    """

    patch_size: int = 16
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    size_factor: int = 32
    understand_min_pixels: int = 128 * 128
    understand_max_pixels: int = 800 * 800
    understand_max_pixels_multi: int = 448 * 448
    edit_max_cells: int = 256
    edit_scale: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Reads the known keys, ignores the others (the released file has some of other models). UserError if
        unusable."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        for name in ("image_mean", "image_std"):
            if name in known:
                known[name] = tuple(known[name])
        if "patch_size" not in known:
            raise UserError('preprocessor_config.json lacks the field "patch_size"')
        for name, value in known.items():
            if name in ("image_mean", "image_std", "edit_scale"):
                continue
            if not (isinstance(value, int | float) and value > 0):
                raise UserError(f'preprocessor_config.json: "{name}" must be a number above 0, not {value!r}')
        settings = cls(**known)
        if settings.size_factor % settings.patch_size:
            raise UserError(
                f"preprocessor_config.json: size_factor {settings.size_factor} is no multiple of "
                f"patch_size {settings.patch_size}"
            )
        return settings

    def to_json(self) -> dict[str, Any]:
        """The whole file: the released layout's keys, then ours."""
        ours = {field.name: getattr(self, field.name) for field in fields(self)}
        ours.update(image_mean=list(self.image_mean), image_std=list(self.image_std))
        return {"do_rescale": True, "do_normalize": True, "temporal_patch_size": 1, "merge_size": 1, **ours}


def understanding_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(height, width), multiples of `factor`, nearest to the picture's shape with an area in the given
    bounds.

    Sides are rounded to the nearest multiple; if the area is then out of bounds, both sides are scaled by the
    same number and rounded inwards. No side falls below `factor`, so extreme shapes may miss the bounds
    (released rule).
    """
    target_h, target_w = (max(factor, round(side / factor) * factor) for side in (height, width))
    if target_h * target_w > max_pixels:
        # Multiplied, not divided: 800 x 800 into 448 x 448 lands a hair below 448, and the record has 416.
        scale = math.sqrt(max_pixels / (height * width))
        target_h, target_w = (max(factor, math.floor(side * scale / factor) * factor) for side in (height, width))
    elif target_h * target_w < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        target_h, target_w = (math.ceil(side * scale / factor) * factor for side in (height, width))
    return target_h, target_w


def covered_size(height: int, width: int, target_h: int, target_w: int) -> tuple[int, int]:
    """(height, width) of the picture scaled, shape kept, until it covers the target."""
    scale = max(target_h / height, target_w / width)
    return round(height * scale), round(width * scale)


def understanding_crop(
    height: int, width: int, alone: bool, settings: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """((height, width) after scaling, (height, width) after the center crop) for a question about the
    picture.

    The crop keeps every whole multiple of the factor, so a long picture may come out longer than
    `understanding_size`.
    """
    factor = settings.size_factor
    most = settings.understand_max_pixels if alone else settings.understand_max_pixels_multi
    target = understanding_size(height, width, factor, settings.understand_min_pixels, most)
    scaled = covered_size(height, width, *target)
    crop_h, crop_w = (max(want, side // factor * factor) for side, want in zip(scaled, target, strict=True))
    return scaled, (crop_h, crop_w)


@lru_cache(maxsize=16)
def editing_sizes(max_cells: int, cell: int, max_ratio: float = 4.0) -> tuple[tuple[int, int], ...]:
    """All (width, height) that an edited picture may have: for every number of columns the tallest grid of at
    most
    `max_cells` cells, and for every number of rows the widest, side ratio at most `max_ratio`; from wide to
    tall.

    These are the corners and edges of the staircase rows * columns <= max_cells, walked from one row to one
    column.
    """
    sizes = []
    columns, rows = max_cells, 1
    while columns:
        if max(columns, rows) <= max_ratio * min(columns, rows):
            sizes.append((columns * cell, rows * cell))
        if columns * (rows + 1) <= max_cells:
            rows += 1
        else:
            columns -= 1
    return tuple(sizes)


def editing_size(height: int, width: int, max_cells: int, cell: int) -> tuple[int, int]:
    """(height, width) of the allowed size whose shape fits the picture best: least is cut away when it is
    covered."""

    def kept(size: tuple[int, int]) -> float:
        across, down = size[0] / width, size[1] / height
        return min(across, down) / max(across, down)

    # Ties go to the wider size, as in the released rule.
    best_w, best_h = max(editing_sizes(max_cells, cell), key=lambda size: (kept(size), size))
    return best_h, best_w


@dataclass(frozen=True)
class EditingCrop:
    """How an image is brought to a grid: scaled to `scaled`, then the center of the size `target`; sizes (height, width).

    resized: whether it is scaled at all. large: whether it is more than twice the grid, which "auto" scales down.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    target: tuple[int, int]
    large: bool

    @classmethod
    def none(cls, height: int, width: int) -> EditingCrop:
        """Nothing is scaled or cut."""
        return cls((height, width), (height, width), (height, width), False)

    @property
    def resized(self) -> bool:
        return self.scaled != self.size

    @property
    def notice(self) -> str:
        """What a person should know who did not choose how a large image is fitted."""
        (height, width), (rows, columns) = self.size, self.target
        return (
            f"the image of {width} x {height} px is more than twice as large as the {columns} x {rows} px that an edit sees: "
            "it was scaled down first (fit=crop shows its middle at full size, as the published code does)"
        )


def editing_crop(height: int, width: int, settings: Preprocessing, fit: str | None = None) -> EditingCrop:
    """How an image of this size is brought to the grid of an edit.

    fit: "crop" (the published rule) does not scale: a large image shows its middle only, a small one gets black at the right
    and the bottom. "resize" scales until the image covers the size. "auto": crop, but resize where a side is more than
    `LARGE` times the grid's. With `settings.edit_scale`, a model trained so, "auto" always scales; None: that alone decides.
    UserError for any other word.
    """
    if fit not in (None, *FITS):
        raise UserError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
    target = editing_size(height, width, settings.edit_max_cells, settings.size_factor)
    large = height > LARGE * target[0] or width > LARGE * target[1]
    scale = settings.edit_scale or (fit == "auto" and large) if fit in (None, "auto") else fit == "resize"
    return EditingCrop((height, width), covered_size(height, width, *target) if scale else (height, width), target, large)


def center(side: int, wanted: int) -> int:
    """Where a center crop of `wanted` pixels begins; 0 where there are fewer."""
    return max(0, (side - wanted) // 2)
