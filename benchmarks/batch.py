"""Many requests at once: 1, 4 and 16 in a batch against the same requests one after another.

    python -m benchmarks.batch [--quick] [--json FILE] [--threads N]

Requests differ in length and seed; the batch must give each the tokens it gets alone. Middle-size backbone with random
weights and the shipped model. A request alone waits for memory, a batch for arithmetic: "at most" is the ratio of a batch
that takes no longer than its products at the measured rate of a large one (attention left out).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import common
from benchmarks.common import Row
from llada_uni.backbone import Backbone, calibration
from llada_uni.backbone.moe import MixtureOfExperts
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Generation, Settings


def requests(model: Backbone, count: int, tokens: int, prefix: int) -> list[Request]:
    """Text of 16 steps a block behind prompts of prefix / 2 to prefix tokens."""
    rng = random.Random(0)
    mask = common.mask_of(model)
    settings = Settings(mask_id=mask, steps=16, gen_length=tokens, allowed=range(mask), temperature=1.0)
    return [
        Request(
            common.random_prompt(model, rng.randint(prefix // 2, prefix), seed),
            settings,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in range(count)
    ]


def together(model: Backbone, count: int, tokens: int, prefix: int) -> list[Generation]:
    return BatchEngine(model).run(requests(model, count, tokens, prefix))


def apart(model: Backbone, count: int, tokens: int, prefix: int) -> list[Generation]:
    return [BatchEngine(model).run([request])[0] for request in requests(model, count, tokens, prefix)]


def products(model: Backbone, count: int, tokens: int, prefix: int) -> int:
    """FLOP of the matrix products of a batch, but for attention: counted with experts in a loop, which can be counted."""
    experts = [layer.mlp.experts for layer in model.model.layers if isinstance(layer.mlp, MixtureOfExperts)]
    for module in experts:
        module.path = "plain"
    try:
        with calibration.using("loop"), FlopCounterMode(display=False) as counter:
            together(model, count, tokens, prefix)
    finally:
        for module in experts:
            module.path = "grouped"
    return counter.get_total_flops()


def row(model: Backbone, name: str, count: int, tokens: int, prefix: int, repeats: int, rate: float) -> Row:
    """One batch size; rate: FLOP a second. Raises AssertionError when a request gets other tokens in the batch than alone."""
    common.progress(f"{name}, {count} requests")
    case = (model, count, tokens, prefix)
    batched, single = together(*case), apart(*case)
    if [r.tokens for r in batched] != [r.tokens for r in single]:
        raise AssertionError(f"{name}: a batch of {count} gives other tokens than its requests alone")
    fast, slow = common.alternate(lambda: together(*case), lambda: apart(*case), repeats)
    done, flop = count * tokens, products(*case)
    more = {"evaluations a request": batched[0].evaluations, "GFLOP/s": flop / fast / 1e9, "at most": slow / (flop / rate)}
    return Row(f"{name}, {count} requests", "one after another", "tokens/s", done / fast, done / slow, slow / fast, more)


def measure(quick: bool) -> Iterator[Row]:
    rate = common.matmul_rate()
    models = {"middle": common.middle_backbone(), "shipped": common.shipped_backbone()}
    sizes, tokens, repeats = ((1, 8), 32, 1) if quick else ((1, 4, 16), 64, 3)
    for name, model in models.items():
        for count in sizes:
            yield row(model, name, count, tokens, 128, repeats, rate)


def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    return common.run(lambda: measure(options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
