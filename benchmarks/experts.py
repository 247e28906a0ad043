"""The experts of one layer on an open block: grouped against the loop over all experts.

    python -m benchmarks.experts [--quick] [--json FILE] [--threads N]

32 tokens, 4 experts a token (2 of 8), even random choices; layers of the middle-size backbone and of the shipped one. The
loop asks for every expert which tokens chose it. Both sides read the same weights, and where these are large, reading
them is what takes the time: "at most" is the ratio of a side that only reads them, at the measured bandwidth. "form" is the
one that was chosen (llada_uni/backbone/forms.py); the others follow at 64 experts. Then the same layer with its experts in one
byte or half a byte a weight: less to read, and rounded ("error", relative); and a quarter of the experts of a 16 B layer, int8
and int4 against the best form of float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.common import Row
from llada_uni.backbone import calibration
from llada_uni.backbone.moe import Routing, grouped_experts, plain_experts
from llada_uni.backbone.quantized import MATRICES, QuantizedExperts
from llada_uni.backbone.quantized_formats import make_scheme
from llada_uni.config import BackboneConfig

LARGE = "16 B"
LAYERS = {"middle": (512, 192), "shipped": (192, 160), LARGE: (2048, 512)}  # width, inner features of an expert
TOKENS = 32
TOP_K = {8: 2, "16 B": 2}  # experts a token, 4 elsewhere; of the released 256 experts 8, so of a quarter of them 2


@dataclass(frozen=True)
class Layer:
    """The experts of a layer and what they are given. matrices: gate and up [E, I, D], down [E, D, I]."""

    x: Tensor
    routing: Routing
    matrices: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def random(cls, name: str, experts: int) -> Layer:
        width, inner = LAYERS[name]
        draw = torch.Generator().manual_seed(0)
        top_k = TOP_K.get(name, TOP_K.get(experts, 4))
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
    def forms(self) -> list[str]:
        """Those that this machine has and the calibration measured."""
        self.grouped()
        return list(self._choice.seconds)

    @property
    def form(self) -> str:
        """The form that was chosen."""
        self.grouped()
        return self._choice.form

    @property
    def _choice(self) -> calibration.Choice:
        shape = tuple(self.matrices[0].shape)
        return next(choice for key, choice in calibration.choices().items() if key.shape == shape)

    @property
    def touched(self) -> int:
        """Bytes of the experts with work, as they are."""
        return sum(m[0].numel() * m.element_size() for m in self.matrices) * len(self.routing.experts.unique())


def row(name: str, experts: int, repeats: int, bandwidth: float) -> Row:
    """One number of experts in a layer. Raises AssertionError when the two sides differ."""
    layer = Layer.random(name, experts)
    torch.testing.assert_close(layer.grouped(), layer.loop(), atol=1e-4, rtol=1e-4)
    fast, slow = common.alternate(layer.grouped, layer.loop, repeats)
    more = {
        "MiB of weights touched": layer.touched / 2**20,
        "GB/s": layer.touched / fast / 1e9,
        "at most": slow / (layer.touched / bandwidth),
        "form": layer.form,
    }
    return Row(f"{name} layer, {experts} experts", "loop", "ms", fast * 1e3, slow * 1e3, slow / fast, more)


def form_rows(name: str, experts: int, repeats: int) -> Iterator[Row]:
    """Each form that this machine has, against the loop."""
    layer = Layer.random(name, experts)
    for form in layer.forms:
        with calibration.using(form):
            fast, slow = common.alternate(layer.grouped, layer.loop, repeats)
        case = f"{name} layer, {experts} experts, {form}"
        yield Row(case, "loop", "ms", fast * 1e3, slow * 1e3, slow / fast, {"GB/s": layer.touched / fast / 1e9})


def quantized_row(name: str, experts: int, format: str, repeats: int, best: bool = False) -> Row:
    """The experts in a format of quantized weights against the float32 loop, or against the best form of float32."""
    layer = Layer.random(name, experts)
    theirs = layer.grouped if best else layer.loop
    width, inner = LAYERS[name]
    sizes = {"num_experts": experts, "hidden_size": width, "moe_intermediate_size": inner}
    config = dataclasses.replace(BackboneConfig.released_16b(), **sizes)
    stored = QuantizedExperts(config, make_scheme(format))
    for matrix, weights in zip(MATRICES, layer.matrices, strict=True):
        for expert in range(experts):
            getattr(stored, matrix).put(expert, weights[expert])
    exact = layer.loop()
    error = ((stored(layer.x, layer.routing) - exact).norm() / exact.norm()).item()
    fast, slow = common.alternate(lambda: stored(layer.x, layer.routing), theirs, repeats)
    case = f"{name} layer, {experts} experts, {format}"
    numbers = sum(part.numel() * part.element_size() for part in stored.buffers())
    touched = numbers * len(layer.routing.experts.unique()) / experts
    peer = "float32, best form" if best else "loop, float32"
    return Row(case, peer, "ms", fast * 1e3, slow * 1e3, slow / fast, {"error": error, "GB/s": touched / fast / 1e9})


def measure(quick: bool) -> Iterator[Row]:
    bandwidth = common.memory_bandwidth()
    sizes, repeats = ((8, 64), 5) if quick else ((8, 16, 32, 64, 128, 256), 31)
    for name in (name for name in LAYERS if name != LARGE):
        for experts in sizes:
            yield row(name, experts, repeats, bandwidth)
        yield from form_rows(name, 64, repeats)
        for format in ("int8", "int4"):
            yield quantized_row(name, 64, format, repeats)
    if LARGE in LAYERS:
        yield row(LARGE, 64, 5, bandwidth)
        for format in ("int8", "int4"):
            yield quantized_row(LARGE, 64, format, 5, best=True)


def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    with torch.inference_mode():
        return common.run(lambda: measure(options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
