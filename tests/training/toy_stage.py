"""The smallest training stage: fits one vector to noisy copies of another. For tests of recipes, launchers and exports.

`python -m tests.training.toy_stage train ...` is the command line with this stage known, for processes that a test starts.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from llada_uni.errors import UserError
from llada_uni.files.weights import write_json, write_weights
from llada_uni.training.language.lora import LoraOptions
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Loss, Objective


@dataclass
class ToyOptions:
    width: int = 4
    noise: float = 0.1
    rule: Literal["square", "absolute"] = "square"
    weights: dict[str, float] | None = None
    lora: LoraOptions | None = None
    sizes: tuple[int, int] = (1, 2)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UserError(f"width is {self.width}; allowed: at least 1")

    def build(self, processes: Processes, seed: int) -> Objective:
        return Toy(self, processes, seed)


class Toy(Objective):
    def __init__(self, options: ToyOptions, processes: Processes, seed: int) -> None:
        super().__init__(processes)
        self.options = options
        self.value = nn.Parameter(torch.zeros(options.width))
        self.seen: dict[str, Tensor] = {}
        self.goal = torch.linspace(-1, 1, options.width) + seed

    def loss(self, step: int, slot: int, rng: random.Random) -> Loss:
        noisy = self.goal + self.options.noise * torch.randn(self.options.width)
        self.seen = {"noisy": noisy}
        total = (self.value - noisy).square().sum()
        return Loss(total, float(self.options.width), {"error": (float(total.detach()), 1.0)})

    def last_batch(self) -> dict[str, Tensor]:
        return self.seen

    def fingerprint(self) -> dict[str, Any]:
        return {"width": self.options.width}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        write_json(folder / "decoder" / "config.json", {"width": self.options.width})
        write_weights(folder / "decoder" / "model.safetensors", {"value": state["value"]}, None)


if __name__ == "__main__":
    from llada_uni.cli import main
    from llada_uni.training.recipes.stages import STAGES

    STAGES["toy"] = "tests.training.toy_stage:ToyOptions"
    sys.exit(main())
