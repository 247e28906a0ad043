"""Trains the autoencoder of the decoder (diffusers.AutoencoderKL) on cells and pictures of the world.

    python -m llada_uni.training.vae --out runs/vae --steps 6000

Pixels are 0..1 outside and -1..1 inside the autoencoder. B batch, H/W pixels.
"""

from __future__ import annotations

import argparse
import json
import random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from llada_uni.training.images import to_images
from llada_uni.training.loop import LoopConfig, run
from llada_uni.world.render import render_array
from llada_uni.world.scene import sample_scene

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [16, 32, 64],
    "layers_per_block": 1,
    "latent_channels": 8,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": False,
    "sample_size": 128,
}


def pictures(rng: random.Random, batch: int, size: int = 128, split: str = "any") -> Tensor:
    """Rendered scenes: float32 [B, 3, size, size] in -1..1."""
    arrays = [render_array(sample_scene(rng, split, two_tone=0.2), size) for _ in range(batch)]
    return to_images(arrays)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/vae")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(CONFIG)

    def loss(step: int, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        # Crops of 64 px cost a quarter; the last tenth sees whole pictures, whose group statistics differ.
        if step < args.steps * 0.9:
            whole = pictures(rng, args.batch)
            y, x = rng.randrange(0, 65, 4), rng.randrange(0, 65, 4)
            images = whole[:, :, y : y + 64, x : x + 64]
        else:
            images = pictures(rng, max(1, args.batch // 3))
        posterior = vae.encode(images).latent_dist
        reconstruction = vae.decode(posterior.sample()).sample
        error = reconstruction - images
        # An L1 term on the gradients keeps the outlines of the drawings sharp.
        edges = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) * 0.5
        fit = error.abs().mean() + edges
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        psnr = -10 * torch.log10(F.mse_loss(reconstruction, images) / 4)
        return fit + 2e-4 * kl, {"psnr": psnr.item(), "kl": kl.item()}

    config = LoopConfig(args.steps, 2e-3, args.out, warmup=100, clip=1.0)
    run(nn.ModuleDict({"vae": vae}), loss, config)
    vae.eval()
    with torch.no_grad():
        latents = vae.encode(pictures(random.Random(1), 64)).latent_dist.mean
    # The released convention: z = (latent - shift) * scale has mean 0 and deviation 1.
    vae.register_to_config(shift_factor=round(latents.mean().item(), 4), scaling_factor=round(1 / latents.std().item(), 4))
    vae.save_pretrained(f"{args.out}/vae")
    print(json.dumps({"shift": vae.config.shift_factor, "scale": vae.config.scaling_factor}))


if __name__ == "__main__":
    main()
