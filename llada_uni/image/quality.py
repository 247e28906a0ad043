"""How near two images are: peak signal-to-noise ratio."""

from __future__ import annotations

import math

_LEAST = 1e-9  # of a squared error: equal images are 90 dB apart


def psnr(squared_error: float, peak: float = 1.0) -> float:
    """dB of a mean squared error. peak: largest difference that pixels can have, in the units of the error."""
    return -10 * math.log10(max(squared_error / peak**2, _LEAST))
