"""Stage `decoder`: flow matching on latents, conditioned on image codes alone (arXiv:2604.20796, decoder training).

x_t = t x1 + (1 - t) x0, noise x0 at t = 0 and data x1 at t = 1; loss |v(x_t, t, codes) - (x1 - x0)|^2. A tenth of the
conditions are zeros, which is the negative branch of guidance. The report's three stages are three recipes of this one:
`train: transformer` (the condition embedder stays frozen), `train: all`, and `train: all` with `clean_only` or another folder
of pictures (high-quality data), each but the first with `init` from the one before.
B pictures, C latent channels, one frame, H x W latents, h x w codes.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from llada_uni.decoder.decode import UPSCALE
from llada_uni.decoder.sampling import base_sample
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.errors import UserError
from llada_uni.files.model_dir import CODE_FEATURES, DECODER
from llada_uni.options import AtLeastOne, Share, options
from llada_uni.training.decoder.decoder_model import Conditioned, DecoderSizes, PositionProbes, part_of, save_transformer_state
from llada_uni.training.decoder.latents import LatentOptions, Latents, prepare
from llada_uni.training.decoder.shown import held_out_sheet
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss, Stage

_SHOWN_STEPS = 20  # of the sampler, for images that are shown during training


@options
class FlowTimes:
    """How times are drawn: uniform, and for the part `shifted` of the pictures t / (t + shift - shift * t), which is where the
    base sampler spends its steps."""

    shift: float = 6.0
    shifted: Share = 0.5

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Times float32 [count] in 0..1."""
        t = torch.rand(count, generator=generator)
        return torch.where(torch.rand(count, generator=generator) < self.shifted, t / (t + self.shift - self.shift * t), t)


@options
class DecoderOptions:
    """latents: the prepared pictures; clean_only: without those of low quality. batch: pictures a micro-batch.

    init: a run or model directory to go on from, "" for fresh weights; its sizes must be `sizes`.
    train: transformer (the code features stay as they are) | all.
    low_memory: with `init` and sharded weights, each process reads its own part only.
    drop_condition: part of the pictures trained without condition. position_probes: weight of the probes that teach a small
    transformer where its tokens are (0: none; docs/log.md). evaluate: held-out pictures.
    """

    latents: LatentOptions
    sizes: DecoderSizes = field(default_factory=DecoderSizes)
    init: str = ""
    low_memory: bool = False
    train: Literal["transformer", "all"] = "all"
    clean_only: bool = False
    batch: AtLeastOne = 10
    drop_condition: Share = 0.1
    times: FlowTimes = field(default_factory=FlowTimes)
    position_probes: float = 0.0
    evaluate: int = 32

    def __post_init__(self) -> None:
        if self.position_probes > 0 and self.latents.keep_shape:
            raise UserError("position_probes are for squares: set it to 0, or latents.keep_shape to false")

    def build_model(self) -> Conditioned:
        """The networks with fresh weights; also on the meta device, for counting."""
        return Conditioned.from_sizes(self.sizes)

    def build(self, processes: Processes, seed: int) -> DecoderStage:
        """The stage; pictures are prepared before the first step. UserError for an `init` of other sizes."""
        torch.manual_seed(seed)
        start = Conditioned.from_pretrained(self.init, self.sizes, self.low_memory) if self.init else self.build_model()
        return DecoderStage(self, start, processes)


def beside(numbers: Tensor, x: Tensor) -> Tensor:
    """A number for each sample, [B] -> [B, 1, ...] with as many axes as x [B, ...]."""
    return numbers.view(-1, *[1] * (x.dim() - 1))


def mixed(x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """x_t = t x1 + (1 - t) x0 with t [B] for x1, x0 [B, ...]."""
    at = beside(t, x1)
    return at * x1 + (1 - at) * x0


def squared_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of each sample's error: [B, ...] -> [B]."""
    return (found - wanted).square().flatten(1).mean(1)


class FlowBatch(NamedTuple):
    """latents float32 [B, C, 1, H, W]; codes int64 [B, h, w]; noise like latents; t float32 [B]; drop bool [B]: whose condition
    is left out (None: nobody's)."""

    latents: Tensor
    codes: Tensor
    noise: Tensor
    t: Tensor
    drop: Tensor | None = None


class DecoderStage(Stage):
    """The flow loss, with the probes' beside it where they are asked for."""

    def __init__(self, options: DecoderOptions, model: Conditioned, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self.options, self.model = options, model
        model.sigvq.requires_grad_(options.train == "all")
        self.probes: PositionProbes | None = None
        if options.position_probes > 0:
            self.probes = PositionProbes(model.transformer, options.latents.positions())

    @cached_property
    def latents(self) -> Latents:
        """The pictures, made now where they are missing."""
        return open_latents(self.options.latents, self.model, self.processes, self.options.clean_only)

    def begin(self, micro_batches: int) -> None:
        _ = self.latents

    def batch(self, step: int, micro_batch: int, generators: Generators) -> FlowBatch:
        x1, codes = self.latents.draw(generators.python, self.options.batch)
        t = self.options.times.draw(len(x1), generators.torch)
        x0 = torch.randn(x1.shape, generator=generators.torch)
        drop = torch.rand(len(x1), generator=generators.torch) < self.options.drop_condition
        return FlowBatch(x1, codes, x0, t, drop)

    def loss(self, batch: FlowBatch) -> Loss:
        x1, codes, x0, t, drop = batch
        flow = squared_error(self.model(mixed(x1, x0, t), t, codes, drop), x1 - x0).sum()
        count = len(x1)
        metrics: dict[str, tuple[float, float]] = {"flow": (flow.item(), count), "images": (count, 0.0)}
        if self.probes is None:
            return Loss(flow, count, metrics)
        position, right = self.probes.loss()
        metrics |= {"position": (position.item() * count, count), "position_accuracy": (right * count, count)}
        return Loss(flow + self.options.position_probes * count * position, count, metrics)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """The flow loss on held-out pictures at fixed noise and evenly spread times."""
        errors = []
        for batch in self.latents.held_out_by_shape(self.options.evaluate):
            x1, codes = self._to_device(*batch)
            noise = torch.randn(x1.shape, generator=torch.Generator().manual_seed(0)).to(x1)
            t = (torch.arange(len(x1), device=x1.device) + 0.5) / len(x1)
            errors.append(squared_error(self.model(mixed(x1, noise, t), t, codes), x1 - noise))
        flow = torch.cat(errors).mean().item()
        return {"held_out_flow": flow, "loss": flow}

    @torch.no_grad()
    def pictures(self, step: int) -> dict[str, np.ndarray]:
        """Held-out images above what is sampled from their codes, without guidance."""

        def sample(noise: Tensor, codes: Tensor) -> Tensor:
            def velocity(state: Tensor, t: float) -> Tensor:
                return self.model(state.float(), torch.full((len(state),), t, device=state.device), codes)

            return base_sample(velocity, noise, _SHOWN_STEPS, guidance=0.0)

        return held_out_sheet(self.options.latents, self.latents, self.processes.torch_device, sample)

    def shard_units(self) -> list[nn.Module]:
        return self.model.layers()

    def materialize(self) -> None:
        self.model.fill(self.options.init)

    def fingerprint(self) -> dict[str, Any]:
        return {"stage": "decoder", **self.model.sizes()}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        save_transformer_state(part_of(state, "model.transformer."), self.model.transformer.config, DECODER.path(folder))
        with torch.device("meta"):
            sigvq = SigVQ(self.model.sigvq.codebook_size, self.model.sigvq.width)
        sigvq.load_state_dict(part_of(state, "model.sigvq."), assign=True)
        sigvq.save_pretrained(CODE_FEATURES.path(folder) / CODE_FEATURES.marker)

    def _to_device(self, *tensors: Tensor) -> list[Tensor]:
        return [tensor.to(self.processes.torch_device) for tensor in tensors]


def open_latents(options: LatentOptions, model: Conditioned, processes: Processes, clean_only: bool) -> Latents:
    """Prepares and opens the pictures; UserError when their shapes or codes do not fit the model."""
    prepare(options, processes)
    latents = Latents(options, clean_only)
    config = model.transformer.config
    unit, channels = UPSCALE * config["all_patch_size"][0], config["in_channels"]
    for x1, codes in latents.held_out_by_shape(1):
        high, wide = (unit * side for side in codes.shape[1:])
        if x1.shape[1:] != (channels, 1, high, wide):
            raise UserError(
                f"the latents in {options.folder} are {x1.shape[1]} x {x1.shape[3]} x {x1.shape[4]}, "
                f"but the decoder's patches need {channels} x {high} x {wide} for {codes.shape[1]} x {codes.shape[2]} codes"
            )
    if latents.codebook_size != model.sigvq.codebook_size:
        raise UserError(
            f"the latents in {options.folder} have {latents.codebook_size} codes, the decoder {model.sigvq.codebook_size}"
        )
    return latents

