"""The experts of a block limited to C: what a step reads, and how long a layer of the released shape takes.

    python -m benchmarks.block_routing [--quick] [--json FILE] [--threads N]

First the shipped model: experts that a forward asks for, a layer, while it draws and answers with each limit (what that does
to the score: `benchmarks.frontier`, points "experts C"). Then one mixture-of-experts layer of the released 16 B shape with
random weights in bfloat16 and a block of 32 random tokens, whose choices agree less than those of a trained router: bytes of
the experts that the block reads, a layer and for all layers, and milliseconds, beside the same layer without a limit.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks import common
from benchmarks.common import Row
from llada_uni.backbone.block_routing import BlockRouting
from llada_uni.backbone.moe import MixtureOfExperts, Router, Routing
from llada_uni.config import BackboneConfig

BLOCK = 32
_DRAWN = 4_000_037  # random numbers that all weights are cut from; odd, so that no two experts are alike
SHIPPED, RELEASED = (8, 6, 4, 3), (96, 64, 48, 32, 16, 8)
PROMPTS = ("a cartoon cat at the top left and a 3d robot at the bottom right on blue", "three flat apples on green")
QUESTION = "what is at the top left?"


def experts_of_the_shipped_model(limits: Sequence[int | None]) -> Iterator[Row]:
    """Distinct experts a layer and forward, with each limit; one request at a time."""
    from llada_uni.model import UniModel

    model: Any = UniModel.from_pretrained("world")
    routers = model.parts.backbone.routers()
    seen: list[int] = []
    hooks = [router.register_forward_hook(lambda _, __, routing: seen.append(_distinct(routing))) for router in routers]
    of_all = 0.0
    try:
        for limit in limits:
            seen.clear()
            for prompt in PROMPTS:
                drawn = model.generate_image(prompt, seed=1, decoder="none", block_experts=limit)
                model.understand(drawn.codes, QUESTION, block_experts=limit)
            mean = statistics.fmean(seen)
            of_all = of_all or mean
            name = "all" if limit is None else f"at most {limit}"
            yield Row(
                f"shipped model, {name} of {model.parts.config.num_experts}", "all", "experts", mean, of_all, of_all / mean
            )
    finally:
        for hook in hooks:
            hook.remove()


def _distinct(routing: Routing) -> int:
    return len(routing.experts.unique())


@torch.inference_mode()
def released_layer(limits: Sequence[int], repeats: int, config: BackboneConfig) -> Iterator[Row]:
    """One layer of `config` on a block, without and with limits, by turns."""
    layer = MixtureOfExperts(config, "grouped").bfloat16().eval()
    layer.gate.float()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(_DRAWN, generator=generator) * config.initializer_range
    for parameter in layer.parameters():
        for part in parameter.view(-1).split(_DRAWN):
            part.copy_(drawn[: len(part)])
    x = torch.randn(1, BLOCK, config.hidden_size, generator=generator).bfloat16()
    layers = sum(not config.is_dense(i) for i in range(config.num_hidden_layers))
    each = 3 * config.hidden_size * config.moe_intermediate_size * 2  # bytes of an expert in bfloat16

    def experts(blocks: BlockRouting | None) -> int:
        router: Router = layer.gate
        return _distinct(router(x[0], blocks))

    whole = experts(None)
    for limit in (None, *limits):
        blocks = None if limit is None else BlockRouting.of([BLOCK], [limit], "cpu")
        ours, theirs = common.alternate(partial(layer, x, blocks), partial(layer, x), repeats)
        found = experts(blocks)
        more = {
            "experts": found,
            "of": whole,
            "MiB a layer": found * each / 2**20,
            "GB a step": found * each * layers / 1e9,
            "GB without a limit": whole * each * layers / 1e9,
        }
        name = "all" if limit is None else f"at most {limit}"
        yield Row(f"16 B layer, {name} of {config.num_experts}", "all", "ms", ours * 1e3, theirs * 1e3, theirs / ours, more)


def measure(quick: bool) -> Iterator[Row]:
    config = BackboneConfig.released_16b()
    yield from released_layer(RELEASED[2:3] if quick else RELEASED, 3 if quick else 9, config)
    yield from experts_of_the_shipped_model((None, *(SHIPPED[:1] if quick else SHIPPED)))


def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    return common.run(lambda: measure(options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
