"""Training to take back one's own errors: some masks of a batch are filled with the model's own proposals, right or wrong.

A noised batch -> a pass without gradient -> its argmax at the masked positions -> in some views a part of the masks is filled
with it -> the pass that learns: masks become tokens as ever, and tokens become tokens, the wrong ones other and the right ones
the same. What stands there at generation (rules that edit: `t2t`, `t2m`) is then what was trained on: errors of the model
itself, which uniform noise is not (arXiv:2604.08302; the mixture is that of the LLaDA2.1 report). With several turns the
proposals of one pass are what the next proposes from.

M masked positions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llada_uni.data.packing import Batch
from llada_uni.errors import UserError
from llada_uni.options import AtLeastOne, Share, options


@options
class CorrectionOptions:
    """share: of the views, those in which masks are filled; least, most: between them lies, evenly drawn, the part of such a
    view's masks that is filled; turns: passes whose proposals are filled in, one after another.
    """

    share: Share = 0.5
    least: Share = 0.0
    most: Share = 1.0
    turns: AtLeastOne = 1

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise UserError(f"correction: least is {self.least} and most {self.most}; allowed: least no more than most")


@torch.no_grad()
def fill_with_own(
    model: Any, packed: Batch, at: Tensor, mask_id: int, chunk: int, how: CorrectionOptions
) -> tuple[Batch, Tensor]:
    """The batch with some masks filled, and which of the masked positions were [M] bool. Draws from torch's global generator.

    model: has `hidden` and `logits`; at int64 [M]: the masked positions, among the flattened ones; chunk: logits of so many are
    held at a time.
    """
    filled = _chosen(packed, at, how).to(at.device)
    places = at[filled]
    ids = packed.ids.clone()
    with _still(model):
        for _ in range(how.turns if len(places) else 0):
            states = model.hidden(ids, packed.positions, packed.mask(), only=places)
            ids.view(-1)[places] = torch.cat([_likeliest(part, model.logits, mask_id) for part in states.split(chunk)])
    return replace(packed, ids=ids), filled


def _chosen(packed: Batch, at: Tensor, how: CorrectionOptions) -> Tensor:
    """Which masked positions are filled [M] bool, on the CPU: noise is the same on every device."""
    segments, views = (part.flatten()[at].cpu() for part in (packed.segments, packed.views))
    _, view = torch.stack([segments, views]).unique(dim=1, return_inverse=True)
    count = int(view.max()) + 1 if len(view) else 0
    taken, part, draw = torch.rand(count) < how.share, torch.rand(count), torch.rand(len(view))
    rate = torch.where(taken, how.least + (how.most - how.least) * part, torch.zeros(count))
    return draw < rate[view]


def _likeliest(states: Tensor, head: Callable[[Tensor], Tensor], mask_id: int) -> Tensor:
    logits = head(states)
    logits[:, mask_id] = float("-inf")  # a mask is no proposal
    return logits.argmax(-1)


@contextmanager
def _still(model: Any) -> Iterator[None]:
    """As the model is when it generates (no dropout)."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def correction_metrics(filled: Tensor, stood: Tensor, targets: Tensor, right: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """(sum, count) by name, of the positions that were filled [M] bool.

    stood, targets int64 [M]: what stands there and what belongs there; right [M] bool: whether the best token is right now.
    own_errors: share of the filled that are wrong; mended: of the wrong ones, those now right; kept: the same of right ones.
    """
    wrong = filled & (stood != targets)
    good = filled & (stood == targets)
    return {
        "own_errors": (wrong.sum(), filled.sum()),
        "mended": ((wrong & right).sum(), wrong.sum()),
        "kept": ((good & right).sum(), good.sum()),
    }
