"""Images that a stage shows while it is trained, laid out on a sheet: rows of what belongs together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_GAP = 2  # pixels between images


def to_bytes(images: Tensor) -> np.ndarray:
    """Images [B, 3, H, W] in -1..1 -> uint8 [B, H, W, 3]."""
    scaled = (images.detach().float().cpu() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def sheet(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of images uint8 [H, W, 3] of any sizes -> one image, each in a cell as large as the largest, on white."""
    high = max(image.shape[0] for row in rows for image in row) + _GAP
    wide = max(image.shape[1] for row in rows for image in row) + _GAP
    out = np.full((high * len(rows) - _GAP, wide * max(map(len, rows)) - _GAP, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            out[y * high : y * high + image.shape[0], x * wide : x * wide + image.shape[1]] = image
    return out
