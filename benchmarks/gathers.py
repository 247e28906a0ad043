"""What FSDP2 moves between processes for the experts of one layer, beside what routed tokens would move (expert parallelism).

    python -m benchmarks.gathers [--experts 16] [--tokens 512] [--processes 2] [--json FILE] [--threads N]

A backbone of the released width with one layer of experts is sharded over processes of this machine, in bfloat16 with sums in
float32, as `parallel.shard` does. Counted, by the collectives that torch dispatches: bytes put together and summed in a step.
From these, per layer and process with all 256 experts, what a step moves; and how many tokens a micro-batch must have before
moving weights is cheaper than moving tokens.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from typing import Any

import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import common
from llada_uni.backbone import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.training.loop.parallel import ParallelOptions, parallelize, setup_processes
from llada_uni.training.loop.stage import Loss, Stage

FACTORS = {"together": "_allgather_base_", "summed": "_reduce_scatter_base_"}


class _Moved(TorchDispatchMode):
    """Bytes of the whole tensors that collectives put together or sum."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = dict.fromkeys(FACTORS, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for name, part in FACTORS.items():
            if part in str(func):
                self.bytes[name] += max(tensor.nbytes for tensor in args if isinstance(tensor, Tensor))
        return func(*args, **(kwargs or {}))


class _Layers(Stage):
    """The states' mean square, behind a dense layer and one with experts."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.model = Backbone(config)

    def loss(self, batch: Tensor) -> Loss:
        return Loss(self.model.hidden(batch).float().square().mean(), 1.0, {})

    def shard_units(self) -> list[torch.nn.Module]:
        return list(self.model.model.layers)


def config_of(experts: int) -> BackboneConfig:
    small = {"num_hidden_layers": 2, "num_experts": experts, "n_group": 1, "topk_group": 1}
    return dataclasses.replace(BackboneConfig.released_16b(), vocab_size=512, image_token_offset=256, **small)


def _work(rank: int, processes: int, port: int, experts: int, tokens: int, threads: int, results: Any) -> None:
    os.environ.update(
        {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    )
    torch.set_num_threads(threads)
    found, stage = setup_processes("cpu"), _Layers(config_of(experts))
    parallelize(stage, ParallelOptions(shard=True), found, "bfloat16")
    batch = torch.arange(tokens).remainder(512).view(1, -1)
    stage.loss(batch).total.backward()  # the first one builds what later ones find
    moved, began = _Moved(), time.perf_counter()
    with moved:
        stage.loss(batch).total.backward()
    if rank == 0:
        results.put((moved.bytes, time.perf_counter() - began))


def expert_bytes(config: BackboneConfig, experts: int) -> int:
    """Of one layer's experts in bfloat16."""
    return experts * 3 * config.hidden_size * config.moe_intermediate_size * 2


def measure(experts: int, tokens: int, processes: int, threads: int) -> list[common.Row]:
    """The bytes of a step as counted here, and per layer at the released size."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(_work, (processes, port, experts, tokens, threads, results), nprocs=processes)
    moved, seconds = results.get()
    released = BackboneConfig.released_16b()
    whole = expert_bytes(released, released.num_experts)
    with torch.device("meta"):
        here = 2 * sum(weight.numel() for weight in Backbone(config_of(experts)).model.parameters())
    per_layer = 2 * whole + 2 * whole  # together forward and backward in bfloat16, summed once in float32
    per_token = released.num_experts_per_tok * released.hidden_size * 2 * 4  # there and back, forward and backward
    size = f"{experts} experts, {processes} processes"
    return [
        common.Row(f"put together in a step, {size}", "2 x bfloat16", "GB", moved["together"] / 1e9, 2 * here / 1e9),
        common.Row(f"summed in a step, {size}", "1 x float32", "GB", moved["summed"] / 1e9, 2 * here / 1e9),
        common.Row(f"a step, {size}, {tokens} tokens", "", "s", seconds),
        common.Row("moved for a layer of 256 experts", "", "GB", per_layer / 1e9),
        common.Row("tokens a micro-batch from which moving weights is less", "", "tokens", per_layer / per_token),
    ]


def main(given: list[str] | None = None) -> int:
    parser = common.arguments(
        __doc__,
        experts={"type": int, "default": 16},
        tokens={"type": int, "default": 512},
        processes={"type": int, "default": 2},
    )
    options = common.start(parser, given)
    threads = max(1, torch.get_num_threads() // options.processes)
    return common.run(lambda: measure(options.experts, options.tokens, options.processes, threads), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
