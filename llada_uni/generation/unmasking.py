"""Which drafts become final in a step (arXiv:2604.20796, block diffusion).

Confidences of the open places of a block -> the accepted ones. A block has few places, so these are plain
lists.
"""

from __future__ import annotations

from collections.abc import Sequence


def quota(block_length: int, steps: int, step: int) -> int:
    """Tokens that step `step` (from 0) accepts at least: the block divided evenly, early steps taking the
    rest.
    """
    return block_length // steps + (step < block_length % steps)


def accept(confidence: Sequence[float], least: int, threshold: float) -> list[int]:
    """Indices of the accepted drafts, in order: all above the threshold, or the best `least` where those are
    fewer.

    Of equal confidences the earlier place goes first.
    """
    sure = [i for i, value in enumerate(confidence) if value > threshold]
    if len(sure) >= least:
        return sure
    return sorted(sorted(range(len(confidence)), key=lambda i: -confidence[i])[:least])
