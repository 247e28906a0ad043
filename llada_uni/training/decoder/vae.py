"""Stage `vae`: the autoencoder of the decoder (diffusers.AutoencoderKL), trained on pictures or fine-tuned from a given one.

Pixels are 0..1 outside and -1..1 inside the autoencoder. The report uses a trained one of the Flux type with 16 channels;
`init` loads such a folder. B pictures, H/W pixels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from llada_uni.decoder.model import save_vae
from llada_uni.errors import UserError
from llada_uni.files.model_dir import VAE
from llada_uni.image.quality import psnr
from llada_uni.options import options
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.sheets import sheet, to_bytes
from llada_uni.training.loop.stage import Generators, Loss, Stage
from llada_uni.training.tokenizer.picture_batches import EVALUATION_SEED, PictureBatches, PictureOptions

_SHOWN = 8  # pictures on a sheet
_CELLS = 8  # cells along the side of a square, of which the sizes of pictures that keep their shape are made


@options
class VaeSizes:
    """channels: width of every level (each but the last halves the side); layers: blocks a level; latent: channels of a
    latent; groups: of the group normalization; attention: in the middle (released: yes)."""

    channels: list[int] = field(default_factory=lambda: [16, 32, 64])
    layers: int = 1
    latent: int = 8
    groups: int = 8
    attention: bool = False

    def config(self, side: int) -> dict[str, Any]:
        """The config of diffusers.AutoencoderKL."""
        return {
            "in_channels": 3,
            "out_channels": 3,
            "down_block_types": ["DownEncoderBlock2D"] * len(self.channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(self.channels),
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "latent_channels": self.latent,
            "norm_num_groups": self.groups,
            "mid_block_add_attention": self.attention,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "force_upcast": False,
            "sample_size": side,
        }


@options
class VaeOptions:
    """Options of the stage.

    init: folder of an AutoencoderKL to go on from (its sizes, shift and scale are kept), "" for a fresh one of `sizes`.
    crop: side of the squares that are cut out, a fraction of the cost; from step `whole_from` on, whole pictures are seen,
    whose group statistics differ, `whole_share` as many. edges: weight of the L1 term on gradients, which keeps outlines
    sharp; kl: weight of the divergence from a normal distribution (mean over the latent's entries).
    keep_shape: pictures keep about their shape, with about side x side pixels, those of a batch the same (needs
    pictures.shrunk: 0); else squares.
    """

    init: str = ""
    pictures: PictureOptions = field(default_factory=lambda: PictureOptions(side=128, count=6, shrunk=0.0, noisy=False))
    sizes: VaeSizes = field(default_factory=VaeSizes)
    crop: int = 64
    whole_from: int = 5850
    whole_share: float = 1 / 3
    edges: float = 0.5
    kl: float = 2e-4
    evaluate_pictures: int = 64
    keep_shape: bool = False

    def build_model(self) -> nn.Module:
        """The network alone, for counting; also on the meta device."""
        return AutoencoderKL.from_config(self.sizes.config(self.pictures.side))

    def build(self, processes: Processes, seed: int) -> VaeStage:
        """The stage with fresh weights from `seed`, or those of `init`. UserError for a crop that does not fit."""
        torch.manual_seed(seed)
        if self.init:
            if not (Path(self.init) / "config.json").is_file():
                raise UserError(f"there is no autoencoder in {self.init} (it needs config.json and its weights)")
            vae = AutoencoderKL.from_pretrained(self.init)
        else:
            vae = self.build_model()
        return VaeStage(self, vae, processes).to(processes.torch_device)


class VaeStage(Stage):
    """Reconstruction in L1 on pixels and on their differences, with a weak pull of the latents to a normal distribution."""

    def __init__(self, options: VaeOptions, vae: AutoencoderKL, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self.options, self.vae = options, vae
        self.factor = 2 ** (len(vae.config["block_out_channels"]) - 1)  # pixels per latent position, along one side
        if not 0 < options.crop <= options.pictures.side or options.crop % self.factor:
            raise UserError(f"crop {options.crop} must be a multiple of {self.factor}, at most {options.pictures.side}")
        self.batches = PictureBatches(options.pictures, cell=self._cell() if options.keep_shape else 0)

    def _cell(self) -> int:
        """Pixels by which sides differ: an eighth of the side, in whole latents; no side is then less than half of `side`."""
        return max(1, self.options.pictures.side // _CELLS // self.factor) * self.factor

    def left_out(self) -> list[str]:
        return self.batches.bad.found

    def batch(self, step: int, micro_batch: int, generators: Generators) -> Tensor:
        """Pictures float32 [B, 3, H, W] in -1..1: squares cut out of them, or whole ones."""
        options, rng = self.options, generators.python
        if step >= options.whole_from:
            return self.batches.draw(rng, max(1, round(options.pictures.count * options.whole_share)))[0]
        whole, _ = self.batches.draw(rng)
        tall, wide = (min(options.crop, side) for side in whole.shape[2:])  # a long picture may be lower than the square
        y = rng.randrange(0, whole.shape[2] - tall + 1, self.factor)
        x = rng.randrange(0, whole.shape[3] - wide + 1, self.factor)
        return whole[:, :, y : y + tall, x : x + wide]

    def loss(self, batch: Tensor) -> Loss:
        """The weight is the number of pictures."""
        posterior = self.vae.encode(batch).latent_dist
        error = self.vae.decode(posterior.sample()).sample.float() - batch
        count = float(len(batch))
        total, kl = self._total(error, posterior)
        metrics = {"psnr": (sum(_psnr(error.detach())), count), "kl": (kl.item() * count, count), "images": (count, 0.0)}
        return Loss(total * count, count, metrics)

    def _total(self, error: Tensor, posterior: DiagonalGaussianDistribution) -> tuple[Tensor, Tensor]:
        """The loss of a batch and its divergence, both means."""
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return error.abs().mean() + self.options.edges * edges + self.options.kl * kl, kl

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """The loss and the reconstruction of held-out pictures from the means of their latents."""
        quality: list[float] = []
        losses: list[float] = []
        for images in self._held_out(self.options.evaluate_pictures):
            posterior = self.vae.encode(images).latent_dist
            error = self.vae.decode(posterior.mean).sample.float() - images
            quality += _psnr(error)
            losses.append(self._total(error, posterior)[0].item())
        return {"heldout_psnr": sum(quality) / len(quality), "loss": sum(losses) / len(losses)}

    def _held_out(self, count: int) -> Iterator[Tensor]:
        """About `count` held-out pictures in micro-batches, the same each time."""
        rng = random.Random(EVALUATION_SEED)
        for _ in range(max(1, count // self.options.pictures.count)):
            yield self.batches.draw(rng, split="heldout")[0].to(self.processes.torch_device)

    @torch.no_grad()
    def pictures(self, step: int) -> dict[str, np.ndarray]:
        """Held-out pictures above their reconstructions."""
        images = next(self._held_out(1))[:_SHOWN]
        again = self.vae.decode(self.vae.encode(images).latent_dist.mean).sample
        return {"reconstructions": sheet([list(to_bytes(images)), list(to_bytes(again))])}

    def shard_units(self) -> list[nn.Module]:
        return [*self.vae.encoder.down_blocks, *self.vae.decoder.up_blocks]

    def fingerprint(self) -> dict[str, Any]:
        return {"channels": list(self.vae.config["block_out_channels"]), "latent": self.vae.config["latent_channels"]}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """vae/ of the model directory, with the measured shift and scale of its latents."""
        vae = AutoencoderKL.from_config(self.vae.config)
        vae.load_state_dict({name.removeprefix("vae."): tensor for name, tensor in state.items()})
        if not self.options.init:
            shift, scale = measure_latents(vae.eval(), self.batches, self.options.evaluate_pictures)
            vae.register_to_config(shift_factor=shift, scaling_factor=scale)
        save_vae(vae, VAE.path(folder))


def _psnr(error: Tensor) -> list[float]:
    """dB of each picture, from pixel errors [B, 3, H, W] on the scale -1..1."""
    return [psnr(one, peak=2.0) for one in error.float().square().mean((1, 2, 3)).tolist()]


@torch.no_grad()
def measure_latents(vae: AutoencoderKL, batches: PictureBatches, pictures: int) -> tuple[float, float]:
    """(shift, scale) such that (latent - shift) * scale has mean 0 and deviation 1: the released convention."""
    rng = random.Random(1)
    rounds = max(1, pictures // batches.options.count)
    latents = torch.cat([vae.encode(batches.draw(rng)[0]).latent_dist.mean.flatten() for _ in range(rounds)])
    return round(latents.mean().item(), 4), round(1 / latents.std().item(), 4)
