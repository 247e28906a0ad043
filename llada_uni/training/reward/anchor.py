"""Ordinary records beside the answers of a reward step, so that what the model could before stays.

Token shards -> records noised as for the stage `backbone` (language/stage.py, whose loss this is) -> their mean loss, added to
that of the answers. A reward says nothing of what it does not ask for, and the weights that it moves are shared.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from llada_uni.data.masking import MaskingOptions
from llada_uni.errors import UserError
from llada_uni.options import AtLeastOne, Share, options
from llada_uni.training.language.losses import Scheme
from llada_uni.training.language.stage import BackboneOptions, BackboneStage, MaskedBatch
from llada_uni.training.loop.ranks import Processes


@options
class AnchorOptions:
    """weight: of the mean loss of the records, beside 1 for the mean objective of the answers. samples: records beside each
    micro-batch of prompts. length: positions of a packed sequence. data (folders of token shards -> share), tasks, masking,
    weighting, frequency_weighting: as for the stage backbone.
    """

    data: dict[str, float]
    weight: Annotated[float, Field(gt=0)] = 1.0
    samples: AtLeastOne = 8
    tasks: dict[str, float] | None = None
    length: int = 640
    masking: MaskingOptions = field(default_factory=MaskingOptions)
    weighting: Scheme = "linear"
    frequency_weighting: Share = 0.0

    def stage(self, model: nn.Module, init: str, block: int, processes: Processes, seed: int) -> BackboneStage:
        """The stage that noises the records and has their loss, on weights that are trained elsewhere."""
        if self.masking.block != block:
            raise UserError(f"anchor.masking.block is {self.masking.block}; the model writes blocks of {block}")
        own = BackboneOptions(
            data=self.data,
            tasks=self.tasks,
            length=self.length,
            samples=self.samples,
            masking=self.masking,
            weighting=self.weighting,
            frequency_weighting=self.frequency_weighting,
            balance=0.0,
            init=init,
        )
        return BackboneStage(model, own, processes, seed)


def anchor_loss(stage: BackboneStage, batch: MaskedBatch) -> tuple[Tensor, dict[str, Any]]:
    """The mean loss of the records, with gradient, and metrics for the log: "anchor", and "anchor/NAME" as the stage's own."""
    found = stage.loss(batch)
    mean = found.total / torch.as_tensor(found.weight).clamp(min=1e-9)
    metrics = {f"anchor/{name}": pair for name, pair in found.metrics.items() if name in batch.counted}
    return mean, {"anchor": (found.total.detach(), found.weight), **metrics}
