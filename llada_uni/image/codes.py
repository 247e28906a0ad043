"""The picture as the language model sees it: a grid of code numbers.

The image tokenizer makes an `ImageCodes`, prompts write it as tokens, the backbone writes
a new one, the decoder paints it. Plain integers, so that a picture can be stored, compared and sent without
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from llada_uni.errors import UserError


@dataclass(frozen=True)
class ImageCodes:
    """A grid of `height` rows and `width` columns of codes, in raster order (row by row, left to right).

    `codes`: height * width integers >= 0; how large they may be is the codebook's business (`check_range`).
    Raises UserError when the length does not fit the grid or a code is no non-negative integer.
    """

    codes: tuple[int, ...]
    height: int
    width: int

    def __post_init__(self) -> None:
        try:
            height, width = index(self.height), index(self.width)
        except TypeError as error:
            raise UserError(
                f"the grid of an image must be whole numbers, not {self.height!r} x {self.width!r}"
            ) from error
        if height < 1 or width < 1:
            raise UserError(
                f"the grid of an image needs at least one row and one column, not {height} x {width}"
            )
        try:
            codes = tuple(index(code) for code in self.codes)
        except TypeError as error:
            raise UserError("image codes must be whole numbers") from error
        if len(codes) != height * width:
            raise UserError(
                f"a grid of {height} x {width} takes {height * width} image codes, {len(codes)} were given"
            )
        if min(codes) < 0:
            raise UserError(f"image codes start at 0, {min(codes)} was given")
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "height", height)
        object.__setattr__(self, "width", width)

    def __len__(self) -> int:
        return len(self.codes)

    def check_range(self, codebook_size: int) -> ImageCodes:
        """Itself, when every code is below `codebook_size`; else UserError."""
        largest = max(self.codes)
        if largest >= codebook_size:
            raise UserError(
                f"image code {largest} is out of range: this model has codes 0 to {codebook_size - 1}"
            )
        return self

    def without_offset(self, offset: int, codebook: int) -> ImageCodes:
        """Codes from 0 of those that are written as tokens, from `offset` on; what can be codes of a codebook of this size, of
        which the largest may lie beyond `offset` in a small vocabulary, stays as it is.

        UserError for a mixture of both.
        """
        tokens = sum(code >= offset for code in self.codes)
        if tokens == 0 or max(self.codes) < codebook:
            return self
        if tokens < len(self.codes):
            raise UserError(f"the codes of an image are a mixture of codes and of tokens from {offset} on")
        return ImageCodes(tuple(code - offset for code in self.codes), self.height, self.width)

    def rows(self) -> list[list[int]]:
        """The codes as `height` lists of `width`."""
        return [list(self.codes[row * self.width : (row + 1) * self.width]) for row in range(self.height)]

    def to_json(self) -> dict[str, Any]:
        return {"height": self.height, "width": self.width, "codes": list(self.codes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ImageCodes:
        """The reverse of `to_json`; UserError when a field is missing or wrong."""
        if not isinstance(data, Mapping):
            raise UserError('image codes are read from {"height": H, "width": W, "codes": [...]}')
        for name in ("height", "width", "codes"):
            if name not in data:
                raise UserError(f'image codes lack the field "{name}" (needed: height, width, codes)')
        if not isinstance(data["codes"], Sequence) or isinstance(data["codes"], str):
            raise UserError('the field "codes" must be a list of whole numbers')
        return cls(tuple(data["codes"]), data["height"], data["width"])
