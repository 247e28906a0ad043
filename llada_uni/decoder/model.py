"""The decoder's two networks, from and to the released files: the flow-matching transformer and the VAE.

Config.json and weights of `decoder/`, `decoder-turbo/`, `vae/` -> diffusers' own classes,
which equal the released parts weight for weight. Only one name differs: the file says `semantic_embedder`
where diffusers says `cap_embedder` (the place where the condition enters).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF, ZImageTransformer2DModel

from llada_uni.errors import UserError
from llada_uni.files.model_dir import DECODER, VAE
from llada_uni.files.weights import (
    WeightFiles,
    default_dtype,
    read_json,
    require,
    stream_into,
    write_json,
    write_part_weights,
)

_RELEASED, _OURS = "semantic_embedder.", "cap_embedder."
_TRANSFORMER_FIELDS = (
    "all_patch_size", "all_f_patch_size", "in_channels", "dim", "n_layers", "n_refiner_layers", "n_heads",
    "axes_dims",
)  # fmt: skip
_VAE_FIELDS = ("block_out_channels", "latent_channels", "layers_per_block", "scaling_factor", "shift_factor")


def released_decoder_config() -> dict[str, Any]:
    """config.json of the 6 B decoder (arXiv:2604.20796 and the released configuration).

    `axes_lens` only sizes tables of angles; it grows when a picture needs more (`fit_positions`).
    """
    return {
        "_class_name": "ZImageTransformer2DModel",
        "all_patch_size": [2], "all_f_patch_size": [1], "in_channels": 16, "dim": 3840, "n_layers": 30,
        "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30, "norm_eps": 1e-5, "qk_norm": True,
        "cap_feat_dim": 4096, "rope_theta": 256.0, "t_scale": 1000.0, "axes_dims": [32, 48, 48],
        "axes_lens": [32768, 1024, 1024], "siglip_feat_dim": None,
    }  # fmt: skip


def released_vae_config() -> dict[str, Any]:
    """config.json of the Flux-type VAE: 16 channels, factor 8 (released configuration)."""
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
        "force_upcast": True, "in_channels": 3, "out_channels": 3,
        "latent_channels": 16, "latents_mean": None, "latents_std": None, "layers_per_block": 2,
        "mid_block_add_attention": True, "norm_num_groups": 32, "sample_size": 1024, "scaling_factor": 0.3611,
        "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
    }  # fmt: skip


def to_module_name(name: str) -> str:
    """Released tensor name -> diffusers' name."""
    return _OURS + name[len(_RELEASED) :] if name.startswith(_RELEASED) else name


def to_released_name(name: str) -> str:
    """diffusers' tensor name -> released name."""
    return _RELEASED + name[len(_OURS) :] if name.startswith(_OURS) else name


def build_transformer(
    config: dict[str, Any], where: str = "the decoder's config.json"
) -> ZImageTransformer2DModel:
    """diffusers' class from a released config; UserError when a field that decides the shape is missing or
    unfit."""
    require(config, _TRANSFORMER_FIELDS, where)
    try:
        return ZImageTransformer2DModel(**_known(ZImageTransformer2DModel.__init__, config))
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{where} describes no possible decoder (dim / n_heads must be the sum of axes_dims)"
        ) from error


def build_vae(config: dict[str, Any], where: str = "the VAE's config.json") -> AutoencoderKL:
    """diffusers' class from a released config; UserError when a field that decides the shape is missing or
    unfit."""
    require(config, _VAE_FIELDS, where)
    try:
        return AutoencoderKL(**_known(AutoencoderKL.__init__, config))
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{where} describes no possible VAE ({' '.join(str(error).split())[:100]})"
        ) from error


def _known(init: Callable[..., None], config: dict[str, Any]) -> dict[str, Any]:
    names = set(inspect.signature(init).parameters) - {"self"}
    return {name: value for name, value in config.items() if name in names}


def load_transformer(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> ZImageTransformer2DModel:
    """Reads `decoder/` or `decoder-turbo/`; dtype None: float32 on the CPU, bfloat16 elsewhere."""
    model, weights = open_transformer(folder)
    stream_into(model, weights, device, dtype or default_dtype(device), to_module_name)
    return model.eval().requires_grad_(False)


def open_transformer(folder: str | os.PathLike[str]) -> tuple[ZImageTransformer2DModel, WeightFiles]:
    """The network that `folder` describes, on the meta device, and the weights that belong into it."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    weights = WeightFiles(folder, DECODER.weights)
    # The width of the condition is read from the weights: the released config may leave it to its program.
    entry = weights.shapes.get("semantic_embedder.0.weight") or weights.shapes.get("cap_embedder.0.weight")
    if entry:
        config = {**config, "cap_feat_dim": entry[0]}
    with torch.device("meta"):
        return build_transformer(config, str(folder / "config.json")), weights


def save_transformer(
    model: ZImageTransformer2DModel, folder: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> None:
    """Writes `config.json` and `model.safetensors` with the released tensor names, each file atomically; weights under
    other names, which `folder` may hold from before, go."""
    folder = Path(folder)
    tensors = {to_released_name(name): tensor for name, tensor in model.state_dict().items()}
    write_part_weights(folder, DECODER, tensors, dtype)
    write_json(folder / DECODER.marker, _plain_config(model, "ZImageTransformer2DModel"))


def load_vae(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> AutoencoderKL:
    """Reads `vae/`; dtype None: float32 on the CPU, bfloat16 elsewhere."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    with torch.device("meta"):
        vae = build_vae(config, str(folder / "config.json"))
    stream_into(vae, WeightFiles(folder, VAE.weights), device, dtype or default_dtype(device))
    return vae.eval().requires_grad_(False)


def save_vae(vae: AutoencoderKL, folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
    """Writes `config.json` and `diffusion_pytorch_model.safetensors`, each file atomically."""
    folder = Path(folder)
    write_part_weights(folder, VAE, vae.state_dict(), dtype)
    write_json(folder / VAE.marker, _plain_config(vae, "AutoencoderKL"))


def _plain_config(model: Any, name: str) -> dict[str, Any]:
    fields = {key: value for key, value in dict(model.config).items() if not key.startswith("_")}
    return {"_class_name": name, **{key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}}


def vae_factor(vae: AutoencoderKL) -> int:
    """Pixels per latent, each way: one halving between every two stages."""
    return factor_of(vae.config)


def factor_of(config: Mapping[str, Any]) -> int:
    """The same, from the VAE's config."""
    return 2 ** (len(config["block_out_channels"]) - 1)


def fit_positions(
    model: ZImageTransformer2DModel, condition: int, frames: int, rows: int, columns: int
) -> None:
    """Grows the rotary tables where a picture of rows x columns patches with `condition` features needs
    longer ones.

    The tables hold angles only, so their length changes no result. The picture's places follow the padded
    condition on the first axis, hence the sum.
    """
    rope = model.rope_embedder
    padded = -(-condition // SEQ_MULTI_OF) * SEQ_MULTI_OF
    needed = (padded + frames + 1, rows, columns)
    if any(have < need for have, need in zip(rope.axes_lens, needed, strict=True)):
        rope.axes_lens = [max(have, need) for have, need in zip(rope.axes_lens, needed, strict=True)]
        rope.freqs_cis = None
