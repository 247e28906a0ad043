"""The three networks between codes and pixels with fixed shapes: condition, one evaluation of the transformer, VAE.

codes [1, h * w] -> `Condition` -> tokens [B, L, D], once a picture;
state [1, C, 1, H, W], time [1], tokens -> `Evaluation` -> velocity [B, C, 1, H, W], at every step of a sampler;
latents [1, C, 1, H, W] -> `Pixels` -> [1, 3, Y, X] in 0..1.
Axes: h x w codes, L condition places (a whole number of 32), D width, C channels, H x W latents, Y x X pixels; B rows: 1 of the
turbo decoder; 2 of the base decoder: with the condition, and with zeros in its place, for guidance.
Exchange formats know no complex numbers, so the rotary angles are pairs here; everything else is the library's own modules.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from torch import Tensor, nn

from llada_uni.decoder.decode import UPSCALE
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.decoder.transformer import Context, angles_of, refined, velocity


class Condition(nn.Module):
    """Codes [1, h * w] int64 -> refined condition [rows, L, D] float32."""

    def __init__(
        self, features: SigVQ, transformer: ZImageTransformer2DModel, grid: tuple[int, int], size: tuple[int, ...], rows: int
    ) -> None:
        """grid: (h, w) of the codes; size: (C, 1, H, W) of the latents; rows: 1, or 2 with guidance."""
        super().__init__()
        self.features, self.transformer = features, real_angles(transformer)
        self.grid, self.rows = grid, rows
        length = UPSCALE**2 * grid[0] * grid[1]
        angles = angles_of(transformer, torch.zeros(1, length, features.width), size)[1]
        self.register_buffer("angles", torch.view_as_real(angles))

    def forward(self, codes: Tensor) -> Tensor:
        rows, columns = self.grid
        each = codes.reshape(rows, 1, columns, 1).expand(rows, UPSCALE, columns, UPSCALE)
        condition = self.features(each.reshape(1, -1))
        if self.rows == 2:
            condition = torch.cat((condition, torch.zeros_like(condition)))
        return refined(self.transformer, condition, self.angles)  # type: ignore[arg-type]  # a buffer is a tensor


class Evaluation(nn.Module):
    """state [1, C, 1, H, W], time [1] (0 noise, 1 data) and condition [rows, L, D] -> velocity [rows, C, 1, H, W]."""

    def __init__(
        self, transformer: ZImageTransformer2DModel, grid: tuple[int, int], size: tuple[int, ...], width: int, rows: int
    ) -> None:
        """grid, size, rows: as for `Condition`; width: of the features of a code."""
        super().__init__()
        self.transformer, self.rows = real_angles(transformer), rows
        length = UPSCALE**2 * grid[0] * grid[1]
        image, text = angles_of(transformer, torch.zeros(1, length, width), size)
        self.register_buffer("image_angles", torch.view_as_real(image))
        self.register_buffer("angles", torch.view_as_real(torch.cat((image, text), 1)))

    def forward(self, state: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        context = Context(condition, self.image_angles, self.angles)  # type: ignore[arg-type]  # buffers are tensors
        return velocity(self.transformer, state.expand(self.rows, -1, -1, -1, -1), time, context)


class Pixels(nn.Module):
    """Latents [1, C, 1, H, W] float32 -> pixels [1, 3, Y, X] float32 in 0..1."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.decoder, self.entry = vae.decoder, vae.post_quant_conv
        self.scale, self.shift = float(vae.config["scaling_factor"]), float(vae.config["shift_factor"])

    def forward(self, latents: Tensor) -> Tensor:
        scaled = latents.squeeze(2) / self.scale + self.shift
        found: Tensor = self.decoder(scaled if self.entry is None else self.entry(scaled))
        return (found / 2 + 0.5).clamp(0, 1)


def real_angles(transformer: ZImageTransformer2DModel) -> ZImageTransformer2DModel:
    """The same network over the same weights, whose layers take angles as pairs [1, N, A, 2] of cosine and sine."""
    shared: dict[int, Any] = {id(p): p for p in transformer.parameters()}
    found: ZImageTransformer2DModel = copy.deepcopy(transformer, shared)
    for module in found.modules():
        set_processor: Any = getattr(module, "set_processor", None)
        if set_processor is not None:
            set_processor(_RealAttention())
    return found


class _RealAttention:
    """What diffusers' `ZSingleStreamAttnProcessor` computes, without complex numbers."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        assert attention_mask is None and freqs_cis is not None  # all pictures have one size, and every layer has angles
        queries, keys, values = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        queries = queries if attn.norm_q is None else attn.norm_q(queries)
        keys = keys if attn.norm_k is None else attn.norm_k(keys)
        queries, keys, values = (
            part.transpose(1, 2) for part in (_turned(queries, freqs_cis), _turned(keys, freqs_cis), values)
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        out: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2, 3))
        return out


def _turned(heads: Tensor, angles: Tensor) -> Tensor:
    """heads [B, N, H, 2 A], neighboring features being pairs, turned by angles [1, N, A, 2]."""
    even, odd = heads.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.unsqueeze(2).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(3).type_as(heads)
