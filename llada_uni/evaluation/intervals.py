"""Confidence intervals for shares."""

from __future__ import annotations

from math import sqrt


def wilson(successes: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval (95 % at z = 1.96) of a share successes / trials; (0, 1) without trials.

    For shares that are means of numbers in [0, 1] it is wider than needed, never narrower:
    such a number varies at most as much as a yes-or-no with the same mean.
    """
    if trials <= 0:
        return 0.0, 1.0
    share = successes / trials
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z / scale * sqrt(max(share * (1 - share), 0.0) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)
