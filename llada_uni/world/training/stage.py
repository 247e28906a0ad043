"""Stage `world_backbone`: the stage `backbone` with two starts that the small world allows, because its codes have names.

named_codes: codes begin as the words they stand for (named_codes.py). lookups: heads fitted by ridge regression, before
training, that look from a word to the code of the same name (lookups.py); `hold` keeps them as they are meanwhile.
Everything else is the general stage's.
"""

from __future__ import annotations

import random
from dataclasses import field
from typing import Any

import torch
from torch import Tensor, nn

from llada_uni.data.kinds import CONTEXT
from llada_uni.errors import UserError
from llada_uni.options import options
from llada_uni.training.language.mixture import Mixture
from llada_uni.training.language.stage import BackboneOptions, BackboneStage
from llada_uni.training.loop.ranks import Processes
from llada_uni.world.training.lookups import FITTED_ROWS, Held, LookUpOptions, fit_lookups
from llada_uni.world.training.named_codes import begin_as_words, named_codes


@options
class WorldBackboneOptions(BackboneOptions):
    """The options of `backbone`, and: named_codes: codes of the patch tokenizer begin as the words they stand for (without
    `init` only); lookups: heads that begin as look-ups.
    """

    named_codes: bool = False
    lookups: LookUpOptions = field(default_factory=LookUpOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.named_codes and self.init is not None:
            raise UserError("named_codes is for a network that starts from random values: leave init out")
        looks_up = self.lookups.fit != "no" or self.lookups.hold
        if (self.named_codes or looks_up) and (self.low_memory or self.lora is not None):
            raise UserError("named_codes and lookups do not go together with low_memory or lora")

    def build(self, processes: Processes, seed: int) -> WorldBackboneStage:
        """The stage, with its first weights."""
        return WorldBackboneStage(self.first_model(seed), self, processes, seed)


class WorldBackboneStage(BackboneStage):
    """The general stage with names and look-ups, where the options want them."""

    options: WorldBackboneOptions

    def __init__(self, model: nn.Module, options: WorldBackboneOptions, processes: Processes, seed: int) -> None:
        super().__init__(model, options, processes, seed)
        self.held: Held | None = None
        if options.named_codes or options.lookups.fit != "no":
            self._first_values()

    def _first_values(self) -> None:
        """Names and look-ups; a checkpoint's weights are loaded over them."""
        options = self.options
        named = named_codes(self.text, self.data.image_token_offset, self.data.codebook_size)
        if options.named_codes:
            begin_as_words(self.backbone, named, self.seed)
        if options.lookups.fit != "no":
            fit_lookups(self.backbone, self._rows_to_fit(), named, self.text.mask_id, options.lookups)

    def _rows_to_fit(self) -> list[Tensor]:
        """Token rows of the data, every other one with its answer masked."""
        mixture = Mixture(self.options.data, self.options.tasks, self.options.length, self.seed)
        rng, rows = random.Random(self.seed), []
        for number in range(FITTED_ROWS):
            record = mixture.draw(0, rng)
            row = torch.from_numpy(record.ids.astype("int64"))
            learned = torch.from_numpy(record.kinds.astype("int64")) != CONTEXT
            rows.append(torch.where(learned, self.text.mask_id, row) if number % 2 else row)
        return rows

    def begin(self, micro_batches: int) -> None:
        super().begin(micro_batches)
        if self.options.lookups.hold:
            self.held = Held(self.backbone, self.options.lookups)

    def after_step(self, step: int) -> dict[str, Any]:
        if self.held is not None:
            self.held.restore()
        return super().after_step(step)
