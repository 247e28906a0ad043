"""The experts of one layer on an open block: grouped against the loop over all experts.

    python -m benchmarks.experts [--quick] [--json FILE] [--threads N]

32 tokens, 4 experts a token (2 of 8), even random choices; layers of the middle-size backbone and of the shipped one. The
loop asks for every expert which tokens chose it. Both sides read the same weights, and where these are large, reading
them is what takes the time: "at most" is the ratio of a side that only reads them, at the measured bandwidth. Then the
same layer with its experts in one byte or half a byte a weight: less to read, and rounded ("error", relative).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.common import Row
from llada_uni.backbone.moe import Routing, grouped_experts, plain_experts
from llada_uni.backbone.quantized import MATRICES, QuantizedExperts
from llada_uni.backbone.quantized_formats import make_scheme
from llada_uni.config import BackboneConfig

LAYERS = {"middle": (512, 192), "shipped": (192, 160)}  # width, inner features of an expert
TOKENS = 32


@dataclass(frozen=True)
class Layer:
    """The experts of a layer and what they are given. matrices: gate and up [E, I, D], down [E, D, I]."""

    x: Tensor
    routing: Routing
    matrices: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def random(cls, width: int, inner: int, experts: int) -> Layer:
        draw = torch.Generator().manual_seed(0)
        top_k = 2 if experts == 8 else 4
        x = torch.randn(TOKENS, width, generator=draw)
        chosen = torch.rand(TOKENS, experts, generator=draw).topk(top_k).indices
        weights = torch.rand(TOKENS, top_k, generator=draw)
        shapes = ((inner, width), (inner, width), (width, inner))
        gate, up, down = (torch.randn(experts, *shape, generator=draw) * 0.05 for shape in shapes)
        return cls(x, Routing(weights, chosen, weights), (gate, up, down))

    def grouped(self) -> Tensor:
        return grouped_experts(self.x, self.routing, *self.matrices)

    def loop(self) -> Tensor:
        return plain_experts(self.x, self.routing, *self.matrices)

    @property
    def touched(self) -> int:
        """Bytes of the experts with work, as they are."""
        return sum(m[0].numel() * m.element_size() for m in self.matrices) * len(self.routing.experts.unique())


def row(name: str, experts: int, repeats: int, bandwidth: float) -> Row:
    """One number of experts in a layer. Raises AssertionError when the two sides differ."""
    layer = Layer.random(*LAYERS[name], experts)
    torch.testing.assert_close(layer.grouped(), layer.loop(), atol=1e-4, rtol=1e-4)
    fast, slow = common.alternate(layer.grouped, layer.loop, repeats)
    more = {
        "MiB of weights touched": layer.touched / 2**20,
        "GB/s": layer.touched / fast / 1e9,
        "at most": slow / (layer.touched / bandwidth),
    }
    return Row(f"{name} layer, {experts} experts", "loop", "ms", fast * 1e3, slow * 1e3, slow / fast, more)


def quantized_row(name: str, experts: int, format: str, repeats: int) -> Row:
    """The experts in a format of quantized weights against the float32 loop."""
    layer = Layer.random(*LAYERS[name], experts)
    width, inner = LAYERS[name]
    sizes = {"num_experts": experts, "hidden_size": width, "moe_intermediate_size": inner}
    config = dataclasses.replace(BackboneConfig.released_16b(), **sizes)
    stored = QuantizedExperts(config, make_scheme(format))
    for matrix, weights in zip(MATRICES, layer.matrices, strict=True):
        for expert in range(experts):
            getattr(stored, matrix).put(expert, weights[expert])
    exact = layer.loop()
    error = ((stored(layer.x, layer.routing) - exact).norm() / exact.norm()).item()
    fast, slow = common.alternate(lambda: stored(layer.x, layer.routing), layer.loop, repeats)
    case = f"{name} layer, {experts} experts, {format}"
    return Row(case, "loop, float32", "ms", fast * 1e3, slow * 1e3, slow / fast, {"error": error})


def measure(quick: bool) -> Iterator[Row]:
    bandwidth = common.memory_bandwidth()
    sizes, repeats = ((8, 64), 5) if quick else ((8, 16, 32, 64, 128, 256), 31)
    for name in LAYERS:
        for experts in sizes:
            yield row(name, experts, repeats, bandwidth)
        for format in ("int8", "int4"):
            yield quantized_row(name, 64, format, repeats)


def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    with torch.inference_mode():
        return common.run(lambda: measure(options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
