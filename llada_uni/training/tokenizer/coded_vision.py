"""What every stage that trains a codebook shares: a vision transformer, a quantizer behind it and the moving-average codebook.

Pictures -> unit vectors of the patches -> nearest codes, straight through. How the codes are asked for meaning is the stage's.
B pictures, N patches a picture, C width of the codebook, K codes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.image.batched import batched_features, nearest_codes, unit_vectors
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Stage
from llada_uni.training.tokenizer.codebook import Codebook
from llada_uni.training.tokenizer.vision import build_quantizer, build_vision


class CodedVisionStage(Stage):
    """options: has vision, book, codebook, features_first (steps before there are codes) and reseed_until."""

    def __init__(self, options: Any, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self.options = options
        self.vision = build_vision(options.vision)
        self.vq = build_quantizer(options.book, options.vision)
        self.codebook = Codebook(options.book.num_embeddings, options.book.embed_dim, options.codebook, self.processes)

    @property
    def book(self) -> Tensor:
        """The codes as unit vectors [K, C]."""
        return F.normalize(self.vq.quantize.embedding.weight, dim=-1)

    def vectors(self, images: Tensor) -> Tensor:
        """Unit vectors before quantization [B, N, C] of pictures [B, 3, H, W] in -1..1."""
        return unit_vectors(self.vq, batched_features(self.vision, images)).float()

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """Codes int64 [B, N], the same that the exported tokenizer gives."""
        return nearest_codes(self.book, self.vectors(images))

    def quantize(self, z: Tensor, step: int, micro_batch: int) -> tuple[Tensor, Tensor]:
        """The nearest codes' vectors [B, N, C], straight through: their gradient goes to z unchanged; and their mean cosine.

        The codebook is told of them.
        """
        codes = nearest_codes(self.book, z.detach())
        q = self.book[codes]
        fit = (z.detach() * q).sum(-1)
        self.codebook.observe(step, micro_batch, z.flatten(0, 1), codes.flatten(), fit.flatten())
        return z + (q - z).detach(), fit.mean()

    def after_step(self, step: int) -> dict[str, float]:
        first, reseed = self.options.features_first, step < self.options.reseed_until
        return self.codebook.after_step(self.vq.quantize.embedding.weight, step, first, reseed)

    def shard_units(self) -> list[nn.Module]:
        return list(self.vision.blocks)
