"""The experts of one layer on an open block: grouped against the loop over all experts.

    python -m benchmarks.experts [--quick] [--json FILE] [--threads N]

32 tokens, 4 experts a token (2 of 8), even random choices; layers of the middle-size backbone and of the shipped one.
Both sides read the same weights: where these are large, reading them is what takes the time (see GB/s).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks import common
from benchmarks.common import Row
from llada_uni.backbone.moe import Routing, grouped_experts, plain_experts

LAYERS = {"middle": (512, 192), "shipped": (192, 160)}  # width, inner features of an expert


def row(name: str, experts: int, tokens: int, repeats: int) -> Row:
    """One number of experts in a layer. Raises AssertionError when the two sides differ."""
    width, inner = LAYERS[name]
    draw = torch.Generator().manual_seed(0)
    top_k = 2 if experts == 8 else 4
    x = torch.randn(tokens, width, generator=draw)
    chosen = torch.rand(tokens, experts, generator=draw).topk(top_k).indices
    weights = torch.rand(tokens, top_k, generator=draw)
    shapes = ((inner, width), (inner, width), (width, inner))
    matrices = [torch.randn(experts, *shape, generator=draw) * 0.05 for shape in shapes]
    case = (x, Routing(weights, chosen, weights), *matrices)
    ours, theirs = grouped_experts(*case), plain_experts(*case)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    fast, slow = common.alternate(lambda: grouped_experts(*case), lambda: plain_experts(*case), repeats)
    touched = sum(m[0].numel() for m in matrices) * len(chosen.unique()) * 4
    more = {"MiB of weights touched": touched / 2**20, "GB/s": touched / fast / 1e9}
    return Row(f"{name} layer, {experts} experts", "loop", "ms", fast * 1e3, slow * 1e3, slow / fast, more)


@torch.inference_mode()
def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    sizes, repeats = ((8, 64), 5) if options.quick else ((8, 16, 32, 64, 128, 256), 31)
    rows = [row(name, experts, 32, repeats) for name in LAYERS for experts in sizes]
    common.report(rows, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
