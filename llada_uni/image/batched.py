"""Many pictures of one size through the vision transformer and the quantizer at once: for training and code extraction.

Pictures [B, 3, H, W] in -1..1 -> patches -> features [B, N, D] -> unit vectors [B, N, C] -> codes [B, N].
transformers' classes take pictures of mixed sizes and so attend to one picture after another; `batch_attention` lets
pictures of one size attend in one call. The results equal those of `ImageTokenizer` (tests/image/test_batched.py).
Axes: B pictures, N patches of a picture in raster order, D width of the transformer, C width of the codebook, K codes.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GlmImageVisionModel, GlmImageVQVAE
from transformers.models.glm_image.modeling_glm_image import GlmImageVisionAttention

from llada_uni.image.tokenizer import ImageTokenizer


class BatchedAttention(GlmImageVisionAttention):
    """The class's attention with its loop over pictures replaced by a batch axis, where all pictures have one size."""

    def forward(self, hidden_states: Tensor, cu_seqlens: Tensor, max_seqlen: int | None = None, **kwargs: Any) -> Tensor:
        """hidden_states [B * N, D], cu_seqlens int [B + 1] as in the class -> [B * N, D]."""
        lengths = cu_seqlens.diff()
        if not torch.all(lengths == lengths[0]):
            return super().forward(hidden_states, cu_seqlens, max_seqlen, **kwargs)
        qkv = self.qkv(hidden_states).view(len(lengths), -1, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        return self.proj(attended.transpose(1, 2).reshape(hidden_states.shape))


def batch_attention(vision: GlmImageVisionModel) -> GlmImageVisionModel:
    """Puts `BatchedAttention` into every block, with the same parameters under the same names; returns `vision`."""
    for block in vision.blocks:
        with torch.device("meta"):
            attention = BatchedAttention(vision.config)
        plain = cast(GlmImageVisionAttention, block.attn)  # of every block of this class
        attention.qkv, attention.proj = plain.qkv, plain.proj
        block.attn = attention
    return vision


def patchify(images: Tensor, patch: int) -> Tensor:
    """[B, 3, H, W] -> [B, N, 3 * patch * patch] in raster order, channels first inside a patch."""
    b, c, h, w = images.shape
    grid = images.view(b, c, h // patch, patch, w // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def batched_features(vision: GlmImageVisionModel, images: Tensor) -> Tensor:
    """Features [B, N, D] of pictures [B, 3, H, W], H and W multiples of the patch. Differentiable."""
    b, _, h, w = images.shape
    patch = cast(int, vision.patch_size)  # GLM-Image's patches are square
    grids = torch.tensor([[1, h // patch, w // patch]] * b, device=images.device)
    hidden = vision(patchify(images, patch).flatten(0, 1), grid_thw=grids).last_hidden_state
    return hidden.view(b, -1, hidden.shape[-1])


def seen_features(vision: GlmImageVisionModel, images: Tensor, seen: Tensor) -> Tensor:
    """Features [B, S, D] of the patches `seen` alone, int64 [B, S] in raster order; they attend to each other and to no other.

    With all patches in order this is `batched_features`. For training on part of every picture (arXiv:2212.00794).
    """
    b, _, h, w = images.shape
    rows, columns = h // cast(int, vision.patch_size), w // cast(int, vision.patch_size)
    patches = patchify(images, cast(int, vision.patch_size))
    patches = patches.gather(1, seen[..., None].expand(-1, -1, patches.shape[-1])).flatten(0, 1)
    flat, length = seen.flatten(), seen.shape[1]
    grids = torch.tensor([[1, rows, columns]] * b, device=images.device)
    hidden = vision.embeddings(vision.patch_embed(patches), [length] * b, grids, flat // columns, flat % columns)
    ends = torch.arange(b + 1, device=images.device, dtype=torch.int32) * length
    for block in vision.blocks:
        hidden = block(hidden, cu_seqlens=ends, max_seqlen=length)
    return hidden.view(b, length, -1)


def unit_vectors(vq: GlmImageVQVAE, features: Tensor) -> Tensor:
    """What the quantizer compares with its codes: features [B, N, D] -> [B, N, C] of length 1. Differentiable."""
    convolution = vq.quant_conv  # 1 x 1, so it is a linear map of each place
    return F.normalize(F.linear(features, convolution.weight[:, :, 0, 0], convolution.bias), dim=-1)


def nearest_codes(book: Tensor, vectors: Tensor) -> Tensor:
    """Codes int64 [...] of unit vectors [..., C] by the largest cosine; book [K, C] of any lengths."""
    return (vectors @ F.normalize(book, dim=-1).T).argmax(-1)


@torch.no_grad()
def batched_codes(tokenizer: ImageTokenizer, images: Tensor) -> Tensor:
    """Codes int64 [B, N] of pictures [B, 3, H, W] in -1..1 (the normalization of `tokenizer.settings`)."""
    vectors = unit_vectors(tokenizer.vq, batched_features(tokenizer.vision, images))
    return nearest_codes(tokenizer.vq.quantize.embedding.weight, vectors)
