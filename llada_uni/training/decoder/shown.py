"""What a decoder draws while it is trained: held-out images above what is sampled from their codes.

Codes of held-out images -> the sampler of the decoder, with few steps -> latents -> the autoencoder that the
latents were made with -> a sheet. C latent channels, H x W latents.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from llada_uni.decoder.model import load_vae
from llada_uni.files.model_dir import VAE
from llada_uni.training.decoder.latents import LatentOptions, Latents
from llada_uni.training.export import model_folder
from llada_uni.training.loop.sheets import sheet, to_bytes

COUNT = 8


@torch.no_grad()
def held_out_sheet(
    options: LatentOptions, latents: Latents, device: torch.device, sample: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, np.ndarray]:
    """Two rows: the autoencoder's reconstructions of held-out images, and what `sample(noise like latents, codes)` gives."""
    vae = load_vae(VAE.path(model_folder(options.vae)), device, torch.float32)
    x1, codes = (tensor.to(device) for tensor in latents.held_out(COUNT))
    noise = torch.randn(x1.shape, generator=torch.Generator().manual_seed(0)).to(x1)
    rows = []
    for found in (x1, sample(noise, codes).to(x1)):
        scaled = found.squeeze(2) / vae.config["scaling_factor"] + vae.config["shift_factor"]
        rows.append(list(to_bytes(vae.decode(scaled).sample)))
    return {"drawn": sheet(rows)}
