"""Experts chosen for a whole block: its tokens may use the C experts that the block wants most, and no others.

Router scores of the tokens of several blocks, a bound for each block -> the scores that the choice is made from. So a step
reads the weights of at most C experts a layer and block. A model that was not trained so loses something.
Source: LLaDA2.2 (C = 48 of 256 there). Axes: N tokens of all blocks, S blocks, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BEHIND = 1e4  # taken off the scores of experts outside a token's groups: they come after all others


@dataclass(frozen=True)
class BlockRouting:
    """block [N] int64: the block of each token; most [S] int64: how many experts each block may use."""

    block: Tensor
    most: Tensor

    @classmethod
    def of(cls, sizes: Sequence[int], most: Sequence[int], device: torch.device | str) -> BlockRouting:
        """For blocks of these sizes that lie side by side, each with its bound."""
        block = torch.arange(len(sizes), device=device).repeat_interleave(torch.tensor(sizes, device=device))
        return cls(block, torch.tensor(most, device=device))

    def restrict(self, grouped: Tensor, scores: Tensor) -> Tensor:
        """Scores [N, E] to choose from: -inf for experts that the token's block may not use.

        scores: those of the router; grouped: the same with -inf outside each token's groups. A block's experts are those with
        the largest of its tokens' grouped scores; of equal ones the first. A token whose groups hold too few of them takes
        the best of the block's others.
        """
        index = self.block.unsqueeze(-1).expand_as(grouped)
        wanted = grouped.new_full((len(self.most), grouped.shape[1]), float("-inf")).scatter_reduce(0, index, grouped, "amax")
        rank = wanted.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        allowed = (rank < self.most.unsqueeze(-1))[self.block]
        inside = torch.where(grouped.isinf(), scores - BEHIND, grouped)
        return inside.masked_fill(~allowed, float("-inf"))
