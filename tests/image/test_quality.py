"""Peak signal-to-noise ratio, against values by hand."""

from __future__ import annotations

import pytest

from llada_uni.image.quality import psnr


def test_signal_to_noise_by_hand():
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(0.2**2, peak=2.0) == pytest.approx(20.0)
    assert psnr(2.0**2, peak=2.0) == pytest.approx(0.0)
    assert psnr(0.0) == pytest.approx(90.0)
