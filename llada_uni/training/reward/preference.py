"""The stage `preference`: direct preference optimization (arXiv:2305.18290) on the likelihoods of block diffusion.

Records with a better answer (their own) and a worse one (their "rejected") -> both noised at the same rates -> log-likelihoods
by the network and by the reference it began as, with the same masks -> -log sigmoid of how much more the network prefers the
better one than the reference does. Bounds stand for likelihoods, as in VRPO (arXiv:2505.19223).
"""

from __future__ import annotations

import random
from dataclasses import field
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from llada_uni.errors import UserError
from llada_uni.options import AtLeastOne, options
from llada_uni.training.loop.logs import Sums, add_metrics
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss
from llada_uni.training.reward.likelihood import Scored, Written
from llada_uni.training.reward.network import NetworkOptions, NetworkStage
from llada_uni.training.reward.objective import preference_loss
from llada_uni.training.reward.prompts import Prompts

_HELDOUT_SEED = 1


@options
class PreferenceOptions(NetworkOptions):
    """The options of the network (network.py; likelihood: elbo), and:

    data: source of records, each with a "rejected" (docs/data.md) -> share; heldout, heldout_samples: for evaluation. pairs: in
    a micro-batch. beta: how strongly the network is held to the reference: the higher, the nearer. normalized: likelihoods are
    divided by the tokens of their answers, so that a long answer counts no more than a short one (beta is then larger).
    """

    data: dict[str, float] = field(default_factory=dict)
    heldout: dict[str, float] | None = None
    heldout_samples: AtLeastOne = 64
    pairs: AtLeastOne = 8
    beta: Annotated[float, Field(gt=0)] = 0.1
    normalized: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise UserError("data is empty; allowed: at least one source of records with its share")
        if self.likelihood != "elbo":
            raise UserError(f"likelihood is {self.likelihood!r}; allowed here: elbo (nobody saw these answers drawn)")

    def build(self, processes: Processes, seed: int) -> PreferenceStage:
        """The stage, with its first weights."""
        return PreferenceStage(self.first_model(seed), self, processes, seed)


class Pairs(NamedTuple):
    """One micro-batch: answers 0, 2, ... are the better ones, 1, 3, ... the worse ones of the same prompts."""

    scored: Scored


class PreferenceStage(NetworkStage):
    """Learns to prefer."""

    options: PreferenceOptions

    def __init__(self, model: nn.Module, options: PreferenceOptions, processes: Processes, seed: int) -> None:
        super().__init__(model, options, processes, seed, compared=True)
        self.prompts = Prompts(options.data, options.init, self.form, seed)
        self.heldout = Prompts(options.heldout, options.init, self.form, _HELDOUT_SEED) if options.heldout else None
        self.micro_batches = 1

    def begin(self, micro_batches: int) -> None:
        self.micro_batches = micro_batches

    def batch(self, step: int, micro_batch: int, generators: Generators) -> Pairs:
        count = self.options.pairs
        first = (step * self.micro_batches + micro_batch) * count
        return self._pairs(self.prompts, range(first, first + count), generators.python)

    def _pairs(self, prompts: Prompts, numbers: range, rng: random.Random) -> Pairs:
        groups = []
        for number, pair in enumerate(prompts.pairs(numbers)):
            seed, written, prompt = rng.getrandbits(62), [], pair.prompt.ids
            for side, answer in enumerate((pair.better, pair.worse)):
                ids = np.array([*prompt, *answer], np.int64)
                noise = np.random.default_rng(seed)  # the same for both: what differs is the answer
                image = pair.prompt.grid is not None
                parts = self.bound_parts(2 * number + side, len(prompt), ids, image, noise)
                written.append(Written(2 * number + side, len(prompt), ids, parts))
            groups.append(written)
        return Pairs(self.packed(groups))

    def loss(self, batch: Pairs) -> Loss:
        scored, options = batch.scored, self.options
        scale = 1 / scored.lengths if options.normalized else torch.ones_like(scored.lengths)
        new, _ = self.likelihoods(scored)
        better, worse = self._sides(new * scale)
        better_before, worse_before = self._sides(self.reference_likelihoods(scored) * scale)
        losses = preference_loss(better, worse, better_before, worse_before, options.beta)
        margin = options.beta * ((better - better_before) - (worse - worse_before)).detach()
        count = float(len(losses))
        metrics = {"preferred": ((margin > 0).sum(), count), "margin": (margin.sum(), count)}
        metrics |= {"better": ((better - better_before).detach().sum(), count)}
        return Loss(losses.sum(), count, metrics)

    @staticmethod
    def _sides(values: Tensor) -> tuple[Tensor, Tensor]:
        return values[0::2], values[1::2]

    def evaluate(self, step: int) -> dict[str, Any]:
        """Loss and metrics on the same held-out pairs with the same masks each time."""
        if self.heldout is None:
            return {}
        sums, rng, count = Sums(), random.Random(0), min(self.options.pairs, self.options.heldout_samples)
        for first in range(0, self.options.heldout_samples, count):
            loss = self.loss(self._pairs(self.heldout, range(first, first + count), rng))
            add_metrics(sums, {**loss.metrics, "loss": (loss.total, loss.weight)})
        return {name: float(value) / float(weight) for name, (value, weight) in sums.items() if weight}
