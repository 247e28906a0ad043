"""A model directory whose decoder can be trained in a test: 32 x 32 pixels are 2 x 2 codes and 8 x 8 latents."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from llada_uni.decoder.model import build_vae, released_vae_config, save_transformer, save_vae
from llada_uni.decoder.sigvq import FILE
from llada_uni.training.decoder.decoder_model import Conditioned, DecoderSizes
from llada_uni.training.decoder.latents import LatentOptions

_TRANSFORMER = {
    "all_patch_size": [2], "in_channels": 4, "dim": 48, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 4,
    "n_kv_heads": 4, "cap_feat_dim": 32, "axes_dims": [4, 4, 4], "axes_lens": [64, 16, 16],
}  # fmt: skip
SIZES = DecoderSizes("world", _TRANSFORMER, codebook=64)


def make_tiny_decoder(folder: Path, golden: Path) -> Path:
    """Image tokenizer (the recorded one), VAE of factor 4, base decoder and code features with random weights."""
    torch.manual_seed(0)
    shutil.copytree(golden / "image_tokenizer", folder / "image_tokenizer", ignore=shutil.ignore_patterns("*.png"))
    levels = {"block_out_channels": [8, 8, 8], "latent_channels": 4, "norm_num_groups": 4, "layers_per_block": 1}
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    plain = {"mid_block_add_attention": False, "sample_size": 32}
    save_vae(build_vae({**released_vae_config(), **levels, **kinds, **plain}), folder / "vae")
    model = Conditioned.from_sizes(SIZES)
    save_transformer(model.transformer, folder / "decoder")
    model.sigvq.save_pretrained(folder / "image_tokenizer" / FILE)
    return folder


def latent_options(model: Path, folder: Path, **changes) -> LatentOptions:
    """14 pictures of the world in shards of 6, and 4 held out."""
    sizes = {"side": 32, "count": 14, "shard": 6, "held_out": 4}
    return LatentOptions(str(folder), str(model), str(model), **{**sizes, **changes})
