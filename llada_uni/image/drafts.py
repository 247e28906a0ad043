"""Drafts of an image from its codes alone, by a small network in place of the decoder: what is shown while an image is drawn.

codes [h, w] -> embedding -> two convolutions over neighboring codes -> a square of P x P pixels for each code. A code of a
semantic tokenizer says what is there, and its neighbors say how it looks: a table of colors, one for each code, is not enough.
A draft takes milliseconds where a decoder takes a good part of a second. `llada-uni data drafts` teaches it (data/drafts.py).
Axes: B images, K codes, h x w codes of an image, W width of the network, P pixels a side of a code's square.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from llada_uni.errors import UserError
from llada_uni.files.model_dir import DRAFTS
from llada_uni.files.weights import WeightFiles, read_json, require, stream_into, write_json, write_part_weights
from llada_uni.image.codes import ImageCodes

WIDTH, SIDE = 96, 8
_FIELDS = ("codebook", "width", "side")


class Drafter(nn.Module):
    """codebook: K, width: W, side: P."""

    def __init__(self, codebook: int, width: int = WIDTH, side: int = SIDE) -> None:
        super().__init__()
        self.codebook, self.width, self.side = codebook, width, side
        self.embedding = nn.Embedding(codebook, width)
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"), nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"), nn.GELU(),
            nn.Conv2d(width, 3 * side * side, 1), nn.PixelShuffle(side),
        )  # fmt: skip

    def forward(self, codes: Tensor) -> Tensor:
        """int64 [B, h, w] -> pixels [B, 3, h P, w P], about 0 to 1."""
        return self.layers(self.embedding(codes).permute(0, 3, 1, 2)) + 0.5

    @torch.inference_mode()
    def draw(self, codes: ImageCodes, pixels: int) -> Image.Image:
        """An image of `pixels` a side for each code. UserError for a code that the network does not know."""
        codes.check_range(self.codebook)
        grid = torch.tensor(codes.rows(), device=self.embedding.weight.device)
        drawn = (self(grid[None])[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu()
        size = (codes.width * pixels, codes.height * pixels)
        return Image.fromarray(drawn.numpy()).resize(size, Image.Resampling.BICUBIC)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Drafter:
        """Reads `drafts/` of a model directory, in float32 on the CPU. UserError for a config that describes no network."""
        folder = Path(folder)
        config: dict[str, Any] = read_json(folder / DRAFTS.marker)
        require(config, _FIELDS, str(folder / DRAFTS.marker))
        sizes = [config[name] for name in _FIELDS]
        if not all(type(size) is int and 0 < size <= 1 << 20 for size in sizes) or sizes[1] * sizes[2] > 1 << 16:
            raise UserError(f"{folder / DRAFTS.marker} describes no possible network: {', '.join(map(str, sizes))}")
        with torch.device("meta"):
            drafter = cls(*sizes)
        stream_into(drafter, WeightFiles(folder, DRAFTS.weights), "cpu", torch.float32)
        return drafter.eval().requires_grad_(False)

    def save_pretrained(self, folder: str | os.PathLike[str], dtype: torch.dtype | None = torch.float16) -> None:
        """Writes weights and config, each file atomically."""
        write_part_weights(folder, DRAFTS, self.state_dict(), dtype)
        write_json(Path(folder) / DRAFTS.marker, {name: getattr(self, name) for name in _FIELDS})
