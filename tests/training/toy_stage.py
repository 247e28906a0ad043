"""The smallest training stage: fits one vector to noisy copies of another. For tests of recipes, launchers and exports.

`python -m tests.training.toy_stage train ...` is the command line with this stage known, for processes that a test starts.
"""

from __future__ import annotations

import sys
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from llada_uni.errors import UserError
from llada_uni.files.weights import write_json, write_weights
from llada_uni.options import options
from llada_uni.training.language.lora import LoraOptions
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss, Stage


@options
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

    def build(self, processes: Processes, seed: int) -> Stage:
        return Toy(self, processes, seed)


class Toy(Stage):
    def __init__(self, options: ToyOptions, processes: Processes, seed: int) -> None:
        super().__init__(processes)
        self.options = options
        self.value = nn.Parameter(torch.zeros(options.width))
        self.goal = torch.linspace(-1, 1, options.width) + seed

    def batch(self, step: int, micro_batch: int, generators: Generators) -> dict[str, Tensor]:
        return {"noisy": self.goal + self.options.noise * torch.randn(self.options.width, generator=generators.torch)}

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        total = (self.value - batch["noisy"]).square().sum()
        return Loss(total, float(self.options.width), {"error": (float(total.detach()), 1.0)})

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
