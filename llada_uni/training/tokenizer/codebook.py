"""The codebook as moving averages: every code follows the vectors that chose it, and dead codes are placed again.

One step: each micro-batch is observed (`observe`), then the codebook moves once (`update`), the same on every process.
A code that (nearly) nobody chooses takes the place of a badly served vector; without it the codebook of the small world
collapsed to 15 codes. M micro-batches a step, P positions (patches of all pictures of a micro-batch), C width, K codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.options import options
from llada_uni.training.loop.ranks import Processes


@options
class CodebookOptions:
    """decay: how much of a code stays at each step; share_decay: the same for the measured shares.

    dead_below: a code is dead when its share falls below this part of an even share, 1 / K; reseed_every: steps between
    placings of dead codes; kept: vectors of a micro-batch that are candidates for them.
    """

    decay: float = 0.97
    share_decay: float = 0.98
    dead_below: float = 0.05
    reseed_every: int = 20
    kept: int = 2048


class Codebook(nn.Module):
    """Moves a codebook of unit vectors [K, C], which the quantizer owns; `share` [K]: moving average of the codes' use."""

    share: Tensor

    def __init__(self, size: int, width: int, options: CodebookOptions, processes: Processes) -> None:
        super().__init__()
        self.options, self.processes, self.width = options, processes, width
        self.register_buffer("share", torch.full((size,), 1.0 / size))
        self._step = -1
        self._candidates: dict[int, Tensor] = {}
        self._totals: Tensor | None = None

    def observe(
        self, step: int, micro_batch: int, vectors: Tensor, codes: Tensor | None = None, fit: Tensor | None = None
    ) -> None:
        """Remembers one micro-batch: unit vectors [P, C], and once codes are in use their codes int64 [P] and cosines [P].

        Without codes a random part of the vectors is kept, for `place`. What an earlier step left is forgotten: it was
        skipped, because its loss was not finite.
        """
        if step != self._step:
            self._step, self._totals = step, None
            self._candidates.clear()
        vectors = vectors.detach().float()
        if codes is None:
            fit = torch.rand(len(vectors), device=vectors.device)
        else:
            assert fit is not None  # comes with the codes
            ones = vectors.new_ones(len(vectors), 1)
            totals = vectors.new_zeros(len(self.share), self.width + 1)
            totals.index_add_(0, codes, torch.cat([vectors, ones], dim=1))
            self._totals = totals if self._totals is None else self._totals + totals
        worst = fit.topk(min(self.options.kept, len(fit)), largest=False)
        self._candidates[micro_batch] = torch.cat([vectors[worst.indices], worst.values[:, None]], dim=1)

    @torch.no_grad()
    def place(self, book: Tensor) -> None:
        """Puts the codes where the observed vectors are: one after another, each farthest from those already placed."""
        vectors = self._gathered()[:, :-1]
        chosen = [vectors[0]]
        nearest = vectors @ chosen[0]
        for _ in range(len(book) - 1):
            chosen.append(vectors[nearest.argmin()])
            nearest = torch.maximum(nearest, vectors @ chosen[-1])
        book.copy_(torch.stack(chosen))
        self.share.fill_(1.0 / len(book))

    @torch.no_grad()
    def update(self, book: Tensor, reseed: bool = True) -> None:
        """Moves `book` [K, C] toward the means of what chose it in this step; `reseed`: place dead codes again."""
        assert self._totals is not None  # codes of this step were observed
        totals = self.processes.sum(self._totals)
        sums, count = totals[:, :-1], totals[:, -1]
        used = count > 0
        mean = F.normalize(sums[used] / count[used, None], dim=-1)
        book[used] = F.normalize(torch.lerp(book[used], mean, 1 - self.options.decay), dim=-1)
        self.share.lerp_(count / count.sum(), 1 - self.options.share_decay)
        if reseed and self._step % self.options.reseed_every == 0:
            self._reseed(book)

    def _reseed(self, book: Tensor) -> None:
        """Dead codes become random ones of the worst served vectors, four times as many as there are dead codes."""
        candidates = self._gathered()
        dead = (self.share < self.options.dead_below / len(book)).nonzero().flatten()[: len(candidates)]
        worst = candidates[candidates[:, -1].argsort()[: 4 * len(dead)], :-1]
        # Every process must pick the same: a generator of its own, seeded by the step.
        order = torch.randperm(len(worst), generator=torch.Generator().manual_seed(self._step))
        book[dead] = worst[order[: len(dead)].to(worst.device)]
        self.share[dead] = 1.0 / len(book)

    def _gathered(self) -> Tensor:
        """The candidates of all micro-batches of all processes, in their order: [M * kept, C + 1], cosine last."""
        mine = torch.stack([self._candidates[one] for one in sorted(self._candidates)])  # [M / processes, kept, C + 1]
        everyone = mine.new_zeros(len(mine), self.processes.size, *mine.shape[1:])
        everyone[:, self.processes.rank] = mine  # micro-batch k belongs to process k % size
        return self.processes.sum(everyone).flatten(0, 2)

    def after_step(self, book: Tensor, step: int, first: int, reseed: bool) -> dict[str, float]:
        """What a stage does behind each step: nothing before codes come into use at step `first`, then `place`, `update`."""
        if step < first - 1:
            return {}
        if step == first - 1:
            self.place(book)
        else:
            self.update(book, reseed)
        return self.metrics()

    def metrics(self) -> dict[str, float]:
        """usage: part of the codes with at least a tenth of an even share; perplexity: of the shares."""
        usage = (self.share * len(self.share) >= 0.1).float().mean()
        entropy = -(self.share * self.share.clamp(min=1e-12).log()).sum()
        return {"usage": usage.item(), "perplexity": entropy.exp().item()}
