"""From the torch.Generator that diffusers' and transformers' users pass to the whole-number seeds of our tasks.

One number is drawn from a generator for every picture or answer, in order. So the same generator state gives the same
results, a generator that was used before goes on (as in diffusers), and a result can be had again by its seed alone,
on the command line or from a server.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llada_uni.errors import UserError
from llada_uni.tasks.checks import LARGEST_SEED


def seeds_of(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """`count` seeds from 0 to 2^63 - 2.

    generator: one for all, drawn from in order; a list with one for each; None: torch's own random state, which
    `torch.manual_seed` sets. UserError for a list of another length.
    """
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise UserError(f"{len(generator)} generators were given for {count} results; allowed: one, or one for each")
        return [_draw(one) for one in generator]
    return [_draw(generator) for _ in range(count)]


def _draw(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(LARGEST_SEED, (), generator=generator, device=device))
