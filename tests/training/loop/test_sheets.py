"""Sheets: every image where it belongs, whatever its size."""

from __future__ import annotations

import numpy as np
import torch

from llada_uni.training.loop.sheets import sheet, to_bytes


def test_images_stand_in_rows_on_white():
    small, large = np.full((2, 3, 3), 10, np.uint8), np.full((4, 5, 3), 20, np.uint8)
    found = sheet([[small, large], [large]])
    assert found.shape == (4 + 2 + 4, 5 + 2 + 5, 3)
    assert (found[:2, :3] == 10).all() and (found[:4, 7:12] == 20).all() and (found[6:, :5] == 20).all()
    assert (found[2:6, :3] == 255).all() and (found[6:, 7:] == 255).all()


def test_pixels_are_rounded_and_cut_off():
    assert to_bytes(torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5))[0, 0, :, 0].tolist() == [
        0, 0, 128, 255, 255,
    ]  # fmt: skip
