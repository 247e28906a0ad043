"""The learning rate over a run, as a factor of its peak: a linear rise, then one of three shapes.

constant: stays at the peak. cosine: falls along half a cosine. wsd (warm-up, stable, decay): stays at the peak and falls
linearly over the last `decay_fraction` of the steps (arXiv:2404.06395, section 4).
"""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine", "wsd")


def rate_factor(schedule: str, step: int, steps: int, warmup: int, decay_fraction: float, minimum: float) -> float:
    """The factor of optimizer step `step` (from 0) of `steps`; it never falls below `minimum` after the warm-up."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        done = (step - warmup) / max(1, steps - warmup)
        return minimum + (1 - minimum) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if schedule == "wsd":
        tail = max(1, round(steps * decay_fraction))
        return max(minimum, min(1.0, (steps - step) / tail))
    raise ValueError(f"unknown schedule {schedule!r}; known: {', '.join(SCHEDULES)}")
