"""What a step costs as the prefix, the block, the experts and the batch grow, with the floor of the machine beside it.

    python -m benchmarks.scaling [--quick] [--json FILE] [--threads N]

Middle-size backbone, random weights. A step is one forward over the open blocks of all requests, the prefix being known.
The rows' ratio is floor / ours, the share of the time that reading weights and multiplying would take at full speed;
each series ends with the exponent b of a fit a * size ** b. Last comes where a step spends its time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from torch.profiler import ProfilerActivity, profile

from benchmarks import common
from benchmarks.common import Row
from benchmarks.floor import Step, floor_seconds
from llada_uni.backbone import Backbone
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Settings

BASE = {"prefix": 256, "block": 32, "experts": 64, "batch": 1}
SERIES = {
    "prefix": (128, 512, 1024, 2048, 4096),
    "block": (8, 16, 32, 64, 128),
    "experts": (8, 16, 32, 64, 128),
    "batch": (1, 2, 4, 8, 16),
}
QUICK = {"prefix": (128, 1024), "batch": (1, 4)}
PROFILED = 8  # operators named in the profile


def drafting(model: Backbone, prefix: int, block: int, batch: int) -> BatchEngine:
    """An engine whose requests have their prompts behind them and are in the middle of a block of one token a step."""
    mask = common.mask_of(model)
    settings = Settings(mask_id=mask, block_length=block, steps=block, gen_length=block, threshold=1.0, allowed=range(mask))
    engine = BatchEngine(model, prefill=batch * prefix)  # whole prompts in the first step
    for seed in range(batch):
        engine.add(Request(common.random_prompt(model, prefix, seed), settings))
    engine.step()
    return engine


def step_seconds(model: Backbone, prefix: int, block: int, batch: int, steps: int) -> float:
    """Median seconds of one step, over as many steps as the block allows, at most `steps`."""
    engine = drafting(model, prefix, block, batch)
    return statistics.median(common.seconds_of(engine.step) for _ in range(min(steps, block - 2)))


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """b of the least-squares fit seconds = a * sizes ** b."""
    x, y = [math.log(s) for s in sizes], [math.log(s) for s in seconds]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    covered = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / covered


def series(
    name: str, sizes: Sequence[int], build: Callable[[int], Backbone], machine: tuple[float, float], steps: int
) -> Iterator[Row]:
    """One row a size of the thing that grows, the others being those of BASE, and the exponent."""
    times = []
    for size in sizes:
        common.progress(f"{name} {size}")
        case = {**BASE, name: size}
        model = build(case["experts"])
        seconds = step_seconds(model, case["prefix"], case["block"], case["batch"], steps)
        shape = Step(case["batch"], case["block"], case["prefix"], common.mask_of(model))
        floor = floor_seconds(model.config, shape, *machine)
        times.append(seconds)
        more = {"times the floor": seconds / floor}
        yield Row(f"{name} {size}", "floor", "ms", seconds * 1e3, floor * 1e3, floor / seconds, more)
    yield Row(f"{name}: exponent", "", "", exponent(sizes, times))


def shares(model: Backbone, steps: int) -> dict[str, float]:
    """The operators a step at BASE spends most of its time in, and their shares of it."""
    engine = drafting(model, BASE["prefix"], BASE["block"], 1)
    engine.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(steps):
            engine.step()
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: event.self_cpu_time_total / total for event in events[:PROFILED]}


def measure(quick: bool) -> Iterator[Row]:
    machine = (common.memory_bandwidth(), common.matmul_rate())
    print(f"bandwidth {machine[0] / 1e9:.1f} GB/s, products {machine[1] / 1e9:.0f} GFLOP/s")
    models: dict[int, Backbone] = {}

    def build(experts: int) -> Backbone:
        if experts not in models:
            models.clear()  # one at a time in memory
            models[experts] = common.middle_backbone(experts, min(4, experts // 4))
        return models[experts]

    steps = 5 if quick else 15
    for name, sizes in (QUICK if quick else SERIES).items():
        yield from series(name, sizes, build, machine, steps)
    for name, share in shares(build(BASE["experts"]), 5).items():
        yield Row(f"share of {name}", "", "of a step", share)


def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    return common.run(lambda: measure(options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
