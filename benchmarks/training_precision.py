"""What bfloat16 and compiled layers are worth in training: seconds of a step's loss and gradient, and of Muon's products.

    python -m benchmarks.training_precision [--quick] [--json FILE] [--threads N]

Each row compares two ways to do the same on the same weights, in turn: float32, bfloat16 with torch's fused attention, bfloat16
as the loop does it (training/loop/layers.py: `plain_attention`), and that with compiled layers (`loop.compile`). The
backbone is the shipped one, the decoder that of recipes/photos. Losses agree to 2 %, which is checked before timing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks.common import Row
from benchmarks.training_step import CASES, noised, our_loss, records_of
from llada_uni.data.masking import MaskingOptions
from llada_uni.files.shipped import shipped
from llada_uni.training.decoder.decoder_model import Conditioned
from llada_uni.training.loop.layers import plain_attention
from llada_uni.training.loop.muon import orthogonalized
from llada_uni.training.recipes.recipe import read_recipe

PICTURES, CODES, MATRICES = 16, 8, (54, 192, 512)


@dataclass(frozen=True)
class Way:
    low: bool = False
    fused: bool = False
    compiled: bool = False


FLOAT32, FUSED, LOW, COMPILED = Way(), Way(low=True, fused=True), Way(low=True), Way(low=True, compiled=True)
PAIRS = (
    ("bfloat16", LOW, "float32", FLOAT32),
    ("plain attention", LOW, "fused attention, bfloat16", FUSED),
    ("compiled", COMPILED, "not compiled, bfloat16", LOW),
)


class Trained:
    """A network with its loss; every way has weights of its own, which are equal."""

    def __init__(self, model: nn.Module, layers: Callable[[nn.Module], Sequence[nn.Module]], loss: Callable) -> None:
        self.loss, self.models = loss, {way: copy.deepcopy(model) for way in (FLOAT32, FUSED, LOW, COMPILED)}
        for layer in layers(self.models[COMPILED]):
            layer.compile()

    def step(self, way: Way) -> float:
        """Loss and gradient."""
        model = self.models[way]
        model.zero_grad()
        with plain_attention(way.low and not way.fused):
            with torch.autocast("cpu", torch.bfloat16) if way.low else nullcontext():
                loss = self.loss(model)
            loss.backward()
        return loss.item()


def decoder(pictures: int = PICTURES) -> Trained:
    sizes = read_recipe(shipped("recipes") / "photos" / "decoder4.yaml").options.sizes
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, sizes.codebook, (pictures, CODES, CODES), generator=generator)
    state = torch.randn(pictures, 8, 1, 2 * CODES, 2 * CODES, generator=generator)
    t = torch.rand(pictures, generator=generator)

    def loss(model: nn.Module) -> Tensor:
        return (model(state, t, codes) - state).square().mean()

    torch.manual_seed(0)
    return Trained(Conditioned.from_sizes(sizes).train(), lambda model: model.layers(), loss)  # type: ignore[operator]


def backbone() -> Trained:
    case = CASES[0]
    model = case.model().train().requires_grad_(True)
    rows = noised(case, model, records_of(case, model), MaskingOptions(rates=(0.3, 0.8)))
    return Trained(model, lambda model: list(model.model.layers), lambda model: our_loss(model, rows, case.length))  # type: ignore[union-attr,arg-type]


def measure(quick: bool) -> Iterator[Row]:
    repeats = 3 if quick else 9
    for name, trained in (("decoder", decoder(2 if quick else PICTURES)), ("backbone", backbone())):
        losses = {way: trained.step(way) for way in trained.models}
        assert max(losses.values()) < 1.02 * min(losses.values()), losses
        for case, ours, peer, theirs in PAIRS:
            mine, others = common.alternate(partial(trained.step, ours), partial(trained.step, theirs), repeats)
            yield Row(f"{name}: {case}", peer, "s", mine, others, others / mine)
    matrices = torch.randn(MATRICES, generator=torch.Generator().manual_seed(0))
    mine, others = common.alternate(lambda: orthogonalized(matrices, low=True), lambda: orthogonalized(matrices), repeats)
    yield Row("Muon's iterations: bfloat16", "float32", "s", mine, others, others / mine)


def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    return common.run(lambda: measure(options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
