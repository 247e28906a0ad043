"""Two very small stages for tests of the loop: a dense one that reads a stream, and a backbone with experts."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from llada_uni.backbone import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.training.language.balance import update_bias
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss, Stage

TINY = BackboneConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
    image_token_offset=40,
    n_group=2,
    topk_group=1,
    initializer_range=0.3,
)


class Exporting(Stage):
    """Exports the full state as one file."""

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")


class LineBatch(NamedTuple):
    step: int
    micro_batch: int
    x: Tensor


class Line(Exporting):
    """Fits sums of numbers; each micro-batch reads its own shuffled stream, whose position is the reader's state.

    bad: steps whose loss of micro-batch 0 is not finite. slow: seconds that drawing a batch takes at least.
    """

    def __init__(
        self, processes: Processes | None = None, width: int = 6, bad: tuple[int, ...] = (), slow: float = 0.0
    ) -> None:
        super().__init__(processes)
        generator = torch.Generator().manual_seed(1)
        self.model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.5
        self.width, self.bad, self.slow = width, bad, slow
        self.positions: dict[int, int] = {}
        self.drawn: list[tuple[int, int, int]] = []  # (step, micro-batch, record)

    def batch(self, step: int, micro_batch: int, generators: Generators) -> LineBatch:
        position = self.positions.get(micro_batch, 0)
        self.positions[micro_batch] = position + 1 + micro_batch  # micro-batches move on at different speeds
        record = random.Random(position).randrange(1000)
        self.drawn.append((step, micro_batch, record))
        time.sleep(self.slow)
        count = 3 + generators.python.randrange(4)  # the weight differs from one to the next
        return LineBatch(step, micro_batch, torch.randn(count, 4, generator=generators.torch) + record / 1000)

    def loss(self, batch: LineBatch) -> Loss:
        step, micro_batch, x = batch
        off = self.model(x + 0.01 * torch.randn_like(x)) - x.sum(1, keepdim=True)  # noise of the loss itself
        total = off.square().sum() * (float("nan") if step in self.bad and micro_batch == 0 else 1.0)
        return Loss(total, float(len(x)), {"off": (off.detach().abs().sum(), len(x)), "samples": (len(x), 0)})

    def reader_state(self, micro_batch: int) -> dict[str, Any]:
        return {"position": self.positions.get(micro_batch, 0)}

    def load_reader_state(self, micro_batch: int, state: dict[str, Any]) -> None:
        self.positions[micro_batch] = state["position"]

    def after_step(self, step: int) -> dict[str, float]:
        return {"after": float(step)}

    def evaluate(self, step: int) -> dict[str, float]:
        return {"output": self.model(torch.ones(1, 4)).item()}

    def shard_units(self) -> list[nn.Module]:
        return [self.model[0], self.model[2]]

    def fingerprint(self) -> dict[str, Any]:
        return {"width": self.width}


class Experts(Exporting):
    """A tiny backbone with a mixture of experts that learns random tokens at masked places; balances its routers."""

    def __init__(self, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self.model = Backbone(TINY, generator=torch.Generator().manual_seed(2))

    def batch(self, step: int, micro_batch: int, generators: Generators) -> tuple[Tensor, Tensor]:
        ids = torch.randint(0, 40, (2, 12), generator=generators.torch)
        return ids, torch.rand(2, 12, generator=generators.torch) < 0.3 + 0.4 * generators.python.random()

    def loss(self, batch: tuple[Tensor, Tensor]) -> Loss:
        ids, masked = batch
        hidden = self.model.hidden(ids.masked_fill(masked, 49))[masked]
        scores = self.model.logits(hidden, slice(0, 40))
        total = F.cross_entropy(scores, ids[masked] % 7, reduction="sum")
        return Loss(total, float(masked.sum()), {"tokens": (ids.numel(), 0)})

    def after_step(self, step: int) -> dict[str, float]:
        load = torch.stack([router.load for router in self.model.routers()])
        load = self.processes.sum(load.clone())
        for router, counts in zip(self.model.routers(), load, strict=True):
            update_bias(router.expert_bias, counts, 0.01)
        self.model.reset_load()
        return {"choices": float(load.sum())}

    def evaluate(self, step: int) -> dict[str, float]:
        return {"score": self.model(torch.arange(12)[None]).square().sum().item()}

    def shard_units(self) -> list[nn.Module]:
        return list(self.model.model.layers)


STAGES = {"line": Line, "experts": Experts}
