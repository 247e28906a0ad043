"""Rendered pictures as tensors, in the range the networks are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_images(arrays: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures [H, W, 3] of one size -> float32 [B, 3, H, W] in -1..1."""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
