"""How the weights of routed experts are stored in one byte or half a byte: rounding, packing, and back.

weight [..., R, C] -> quantize -> values and scales -> dequantize -> [..., R, C] in float32, a little wrong.
Axes: ... experts, R rows (output features), C columns (input features), G columns of a group, T tiles of 64
rows.

- int8: values int8 [..., R, C], one bfloat16 scale a row [..., R, 1].
- int4: two values a byte. Each group of G columns of a row has a scale and a zero point; the range between
  them is shrunk a little where that lowers the squared error. Values uint8 [..., T, C, 32] stand as torch's
  AVX512 kernel reads them, so that such a machine computes on the mapped file: byte r of column c holds row r
  of the tile below, row r + 32 above. Scales bfloat16 [..., C / G, R, 2]: weight = (value - 8) * scale + zero.
- float8: values float8_e4m3fn [..., R, C], a float32 scale for each block of the scheme: a row, 128 x 128, or
  the whole matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_uni.errors import UserError

FORMATS = ("int8", "int4", "float8")
GROUPS = (256, 128, 64, 32)  # what torch's int4 kernel takes
DEFAULT_GROUP = 128
_TILE = 64
_SHRINK = (1.0, 0.95, 0.9, 0.85)  # of the int4 range: fewer clipped values against finer steps
_FLOAT8 = torch.float8_e4m3fn
_TINY = 1e-12  # scale of a block of zeros


class Quantized(NamedTuple):
    """One or several weight matrices in a format."""

    values: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Scheme:
    """A format, and the block of weights that shares a scale: `rows` x `columns`, None for all of them."""

    format: str
    rows: int | None = 1
    columns: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The entry `quantization_config` of config.json."""
        block = [self.rows, self.columns]
        return {"quant_method": "llada_uni", "format": self.format, "block": block, "modules": ["mlp.experts"]}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Scheme:
        """Reads what `to_json` gave; UserError for a format this version does not know."""
        block = entry.get("block")
        if entry.get("format") not in FORMATS or not isinstance(block, list) or len(block) != 2:
            raise UserError(
                f"config: quantization_config has the format {entry.get('format')!r} with the block {block!r}; "
                f"allowed: {', '.join(FORMATS)} with [rows, columns]"
            )
        return cls(entry["format"], *block)

    def block(self, rows: int, columns: int) -> tuple[int, int]:
        """The block in a matrix of this size. Columns of int4: the largest group up to the asked one that fits.

        UserError for a width that no int4 group divides.
        """
        if self.format != "int4":
            return self.rows or rows, self.columns or columns
        fitting = [group for group in GROUPS if group <= (self.columns or columns) and columns % group == 0]
        if not fitting:
            raise UserError(f"int4 needs rows of a multiple of {GROUPS[-1]} weights, not {columns}; use int8")
        return 1, fitting[0]

    def shapes(self, experts: int, rows: int, columns: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of `values` and `scale` for so many matrices [rows, columns]."""
        high, wide = self.block(rows, columns)
        if self.format == "int4":
            tiles = -(-rows // _TILE)
            return {
                "values": ((experts, tiles, columns, _TILE // 2), torch.uint8),
                "scale": ((experts, columns // wide, tiles * _TILE, 2), torch.bfloat16),
            }
        scales = (experts, -(-rows // high), -(-columns // wide))
        values, scale = (_FLOAT8, torch.float32) if self.format == "float8" else (torch.int8, torch.bfloat16)
        return {"values": ((experts, rows, columns), values), "scale": (scales, scale)}


def make_scheme(format: str, group: int = DEFAULT_GROUP) -> Scheme:
    """The scheme of a format's name. `group`: columns that share a scale in int4. UserError for other values."""
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; allowed: {', '.join(FORMATS)}")
    if group not in GROUPS:
        raise UserError(f"the group is {group}; allowed: {', '.join(map(str, sorted(GROUPS)))}")
    return Scheme(format, 1, group if format == "int4" else None)


def quantize(weight: Tensor, scheme: Scheme) -> Quantized:
    """weight [..., R, C] in any floating dtype -> its stored form."""
    weight = weight.float()
    if scheme.format == "int4":
        return _quantize_int4(weight, scheme.block(*weight.shape[-2:])[1])
    largest = 127.0 if scheme.format == "int8" else torch.finfo(_FLOAT8).max
    block = scheme.block(*weight.shape[-2:])
    scale = (_block_largest(weight, block) / largest).clamp(min=_TINY)
    if scheme.format == "int8":
        scale = scale.bfloat16()  # before it divides: what is stored is what the rounding saw
    scaled = (weight / expand(scale, block, weight.shape[-2:])).clamp_(-largest, largest)
    return Quantized(scaled.to(_FLOAT8) if scheme.format == "float8" else scaled.round_().to(torch.int8), scale)


def dequantize(stored: Quantized, scheme: Scheme, rows: int) -> Tensor:
    """The weights [..., R, C] that the stored form stands for, in float32. `rows`: R, which int4 may exceed."""
    if scheme.format == "int4":
        return _dequantize_int4(stored).mT[..., :rows, :]
    values = stored.values
    wide = float8_to_float16(values).float() if values.dtype == _FLOAT8 else values.float()
    return wide * expand(stored.scale, scheme.block(rows, values.shape[-1]), values.shape[-2:])


def expand(scale: Tensor, block: tuple[int, int], shape: torch.Size) -> Tensor:
    """One scale a block [..., R / r, C / c] -> something that multiplies [..., R, C]; edge blocks are cut."""
    if 1 < scale.shape[-1] < shape[1]:  # one block is broadcast, blocks of one need nothing
        scale = scale.unsqueeze(-1).expand(*scale.shape, block[1]).flatten(-2)[..., : shape[1]]
    if 1 < scale.shape[-2] < shape[0]:
        scale = scale.unsqueeze(-2).expand(*scale.shape[:-1], block[0], -1).flatten(-3, -2)[..., : shape[0], :]
    return scale


def float8_to_float16(values: Tensor) -> Tensor:
    """Exact for all finite values, with integer shifts: torch converts float8 on a CPU one by one, 10 x slower.

    Both formats end with the mantissa, so the 7 bits of a magnitude move up by 7; the exponents' biases differ
    by 8, which a factor of 256 mends.
    """
    bits = values.view(torch.int8).to(torch.int16)
    bits.bitwise_left_shift_(7).bitwise_and_(~0x4000)  # the sign was copied into bit 14
    return bits.view(torch.float16).mul_(256.0)


def _block_largest(weight: Tensor, block: tuple[int, int]) -> Tensor:
    """Largest magnitude of each block [..., R / r, C / c]."""
    rows, columns = weight.shape[-2:]
    high, wide = block
    padded = F.pad(weight.abs(), (0, -columns % wide, 0, -rows % high))
    return padded.unflatten(-1, (-1, wide)).unflatten(-3, (-1, high)).amax((-3, -1))


def _quantize_int4(weight: Tensor, group: int) -> Quantized:
    tiles = F.pad(weight, (0, 0, 0, -weight.shape[-2] % _TILE)).unflatten(-2, (-1, _TILE))
    done = [_quantize_tile(tile, group) for tile in tiles.unbind(-3)]  # one at a time stays in a processor's cache
    values = torch.stack([values for values, _ in done], -3)  # [..., T, 64, C]
    scales = torch.cat([scales for _, scales in done], -3)  # [..., R, C / G, 2]
    return Quantized(_pack_int4(values), scales.transpose(-3, -2).contiguous())


def _quantize_tile(tile: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """[..., 64, C] -> values 0..15 of the same shape, and scale and zero of each group [..., 64, C / G, 2]."""
    grouped = tile.unflatten(-1, (-1, group))
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    scale, zero = torch.empty_like(low), torch.empty_like(low)
    least = torch.full_like(low, torch.inf)
    for shrink in _SHRINK:
        # Rounded to what is stored before the error is measured; the middle of the range stays where it is.
        step = ((high - low) * (shrink / 15)).clamp(min=_TINY).bfloat16().float()
        middle = ((high + low) / 2 + step / 2).bfloat16().float()
        rounded = _round_int4(grouped, step, middle)
        error = rounded.mul_(step).add_(middle).sub_(grouped).square_().sum(-1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        scale, zero = torch.where(better, step, scale), torch.where(better, middle, zero)
    values = _round_int4(grouped, scale, zero).add_(8).flatten(-2)
    return values.to(torch.uint8), torch.cat((scale, zero), -1).bfloat16()


def _round_int4(grouped: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return ((grouped - zero).div_(scale)).round_().clamp_(-8, 7)


def _pack_int4(tiles: Tensor) -> Tensor:
    """[..., T, 64, C] of 0..15 -> [..., T, C, 32]: two rows of a tile in each byte."""
    low, high = tiles.chunk(2, -2)
    return (low | (high << 4)).mT.contiguous()


def _dequantize_int4(stored: Quantized) -> Tensor:
    """The transposed weights [..., C, R], R padded to whole tiles."""
    values = torch.cat((stored.values & 15, stored.values >> 4), -1)  # [..., T, C, 64]
    by_column = values.transpose(-3, -2).flatten(-2)  # [..., C, R]
    groups = stored.scale.shape[-3]
    scale, zero = stored.scale.float().unsqueeze(-3).unbind(-1)  # [..., C / G, 1, R]
    return ((by_column.unflatten(-2, (groups, -1)).float() - 8) * scale + zero).flatten(-3, -2)
