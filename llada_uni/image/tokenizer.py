"""The image tokenizer: pixels -> one code per patch (SigLIP2-g type vision transformer + vector quantizer,
released design).

PIL picture -> shaping (preprocess.py) -> patches [N, C*P*P] -> vision transformer [N, D]
-> nearest code by cosine [N]. Both networks are transformers' own classes, which equal the released parts
weight for weight. Axes: N patches of all pictures together, C colors, P patch side, D width of the vision
transformer, K codes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import nn
from transformers import GlmImageVisionConfig, GlmImageVisionModel, GlmImageVQVAE, GlmImageVQVAEConfig

from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.files.weights import (
    WeightFiles,
    default_dtype,
    read_json,
    require,
    stream_into,
    write_json,
    write_part_weights,
)
from llada_uni.image.codes import ImageCodes
from llada_uni.image.geometry import Preprocessing
from llada_uni.image.preprocess import crop_for_editing, resize_for_understanding, to_patches
from llada_uni.image.reader import flatten_alpha

Mode = Literal["understand", "edit", "raw"]

# Released prefix -> ours. The released file was cut out of a larger model, hence "model.".
PREFIXES = {"model.visual.": "vision.", "model.vqmodel.": "vq."}
_VISION_FIELDS = ("hidden_size", "intermediate_size", "num_heads", "depth", "patch_size", "image_size")
_VQ_FIELDS = ("num_embeddings", "embed_dim", "latent_channels")
# Only fields that describe the network reach transformers: others could name code for it to fetch and run
# ("_attn_implementation": "somebody/kernel").
_VISION_KNOWN = (
    *_VISION_FIELDS, "in_channels", "hidden_act", "attention_bias", "attention_dropout", "layer_norm_eps",
    "spatial_merge_size", "initializer_range",
)  # fmt: skip
_VQ_KNOWN = (*_VQ_FIELDS, "in_channels", "initializer_range")


def released_tokenizer_config() -> dict[str, Any]:
    """config.json of the released size (arXiv:2604.20796 and the released configuration)."""
    vision = {
        "hidden_size": 1536, "intermediate_size": 6144, "num_heads": 16, "depth": 40, "patch_size": 16,
        "image_size": 2048, "in_channels": 3, "hidden_act": "gelu", "attention_bias": True,
        "attention_dropout": 0.0, "layer_norm_eps": 1e-6, "spatial_merge_size": 1,
    }  # fmt: skip
    return {
        "vision_config": vision,
        "vq_config": {"num_embeddings": 16384, "embed_dim": 2048, "latent_channels": 1536, "beta": 0.25},
    }


def to_module_name(name: str) -> str:
    """Released tensor name -> name in `ImageTokenizer`; unknown names stay as they are (and are refused
    later)."""
    for released, ours in PREFIXES.items():
        if name.startswith(released):
            return ours + name[len(released) :]
    return name


def to_released_name(name: str) -> str:
    """The reverse of `to_module_name`."""
    for released, ours in PREFIXES.items():
        if name.startswith(ours):
            return released + name[len(ours) :]
    return name


def _only(fields: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in known}


class ImageTokenizer(nn.Module):
    """Pixels to codes. `.vision` and `.vq` are transformers' modules; `.settings` the shaping of pictures.

    `config`: {"vision_config": {...}, "vq_config": {...}} as in the released config.json.
    Raises UserError when the config lacks a field that decides the shape.
    """

    def __init__(self, config: dict[str, Any], settings: Preprocessing | None = None) -> None:
        super().__init__()
        require(config, ("vision_config", "vq_config"), "the image tokenizer's config.json")
        require(config["vision_config"], _VISION_FIELDS, "the image tokenizer's config.json, vision_config,")
        require(config["vq_config"], _VQ_FIELDS, "the image tokenizer's config.json, vq_config,")
        self.config = {name: dict(part) for name, part in config.items() if isinstance(part, dict)}
        try:
            self.vision = GlmImageVisionModel(GlmImageVisionConfig(**_only(config["vision_config"], _VISION_KNOWN)))
            self.vq = GlmImageVQVAE(GlmImageVQVAEConfig(**_only(config["vq_config"], _VQ_KNOWN)))
        except (LookupError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError("the image tokenizer's config.json describes no possible network") from error
        patch = config["vision_config"]["patch_size"]
        self.settings = settings or Preprocessing(patch_size=patch)
        if self.settings.patch_size != patch:
            raise UserError(
                f"the image tokenizer's patch_size is {patch} in config.json but {self.settings.patch_size} "
                "in preprocessor_config.json"
            )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> ImageTokenizer:
        """Reads `image_tokenizer/` of a model directory; dtype None: float32 on the CPU, bfloat16
        elsewhere."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"there is no image tokenizer {folder}")
        config = read_json(folder / "config.json")
        settings = Preprocessing.from_json(read_json(folder / "preprocessor_config.json"))
        with torch.device("meta"):
            tokenizer = cls(config, settings)
        weights = WeightFiles(folder, IMAGE_TOKENIZER.weights)
        stream_into(tokenizer, weights, device, dtype or default_dtype(device), to_module_name)
        return tokenizer.eval().requires_grad_(False)

    def save_pretrained(self, folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Writes the released layout, each file atomically; `dtype` None keeps the weights' own."""
        folder = Path(folder)
        tensors = {to_released_name(name): tensor for name, tensor in self.state_dict().items()}
        write_part_weights(folder, IMAGE_TOKENIZER, tensors, dtype)
        write_json(folder / "preprocessor_config.json", self.settings.to_json())
        write_json(folder / "config.json", self.config)

    @property
    def codebook_size(self) -> int:
        return self.vq.quantize.num_embeddings

    @property
    def patch_size(self) -> int:
        return self.settings.patch_size

    def shape(
        self, picture: Image.Image, mode: Mode = "understand", alone: bool = True, fit: str | None = None
    ) -> Image.Image:
        """The RGB pixels that `encode` reads; `raw` leaves the size as it is; fit (only for `edit`): see
        `crop_for_editing`. UserError for an unknown mode."""
        if mode == "understand":
            return resize_for_understanding(picture, alone, self.settings)
        if mode == "edit":
            return crop_for_editing(picture, self.settings, fit)
        if mode == "raw":
            return flatten_alpha(picture)
        raise UserError(f"unknown mode {mode!r}; allowed: understand, edit, raw")

    def encode(self, picture: Image.Image, mode: Mode = "understand", alone: bool = True) -> ImageCodes:
        """Codes of one picture. `alone`: it is the only picture of its prompt (only for `understand`).

        Raises UserError for an unknown mode, and in `raw` when a side is no multiple of the patch size.
        """
        return self.encode_many([picture], mode, alone)[0]

    def encode_many(
        self, pictures: Sequence[Image.Image], mode: Mode = "understand", alone: bool = True
    ) -> list[ImageCodes]:
        """Codes of several pictures in one pass; each picture attends to itself only, so the codes are those
        of `encode`."""
        return self._encode(pictures, mode, alone)[0]

    def encode_with_nearness(
        self, picture: Image.Image, mode: Mode = "understand", alone: bool = True
    ) -> tuple[ImageCodes, float]:
        """Codes as of `encode`, and how well they fit: the mean cosine, -1 to 1, between patches and their codes."""
        (codes,), hidden = self._encode([picture], mode, alone)
        return codes, self._nearness(hidden)

    @torch.no_grad()
    def _encode(
        self, pictures: Sequence[Image.Image], mode: Mode, alone: bool
    ) -> tuple[list[ImageCodes], torch.Tensor]:
        """Codes of pictures, and the vision features [N, D] that they were made from."""
        if not pictures:
            return [], torch.empty(0)
        cut = [to_patches(self.shape(picture, mode, alone), self.settings) for picture in pictures]
        hidden = self.features(
            torch.cat([patches for patches, _, _ in cut]), [(rows, cols) for _, rows, cols in cut]
        )
        parts = self._nearest(hidden).split([rows * columns for _, rows, columns in cut])
        found = [
            ImageCodes(tuple(part.tolist()), rows, columns)
            for part, (_, rows, columns) in zip(parts, cut, strict=True)
        ]
        return found, hidden

    def features(self, patches: torch.Tensor, grids: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Vision features [N, D] of patches [N, C*P*P]; `grids`: (rows, columns) of each picture.
        Differentiable."""
        weight = self.vision.patch_embed.proj.weight
        grid_thw = torch.tensor([(1, rows, columns) for rows, columns in grids], device=weight.device)
        patches = patches.to(weight.device, weight.dtype)
        return self.vision(patches, grid_thw=grid_thw).last_hidden_state

    @torch.no_grad()
    def _nearness(self, hidden: torch.Tensor) -> float:
        """Mean cosine between features [N, D] and the nearest codes."""
        found = self.vq.quant_conv(hidden.T[None, :, :, None])[0, :, :, 0].T.float()
        codes = nn.functional.normalize(self.vq.quantize.embedding.weight.float(), dim=-1)
        cosines = nn.functional.normalize(found, dim=-1) @ codes.T
        return float(cosines.max(1).values.mean())

    def codes_of(self, patches: torch.Tensor, grids: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Codes [N] int64 of patches [N, C*P*P]; arguments as in `features`."""
        return self._nearest(self.features(patches, grids))

    def _nearest(self, hidden: torch.Tensor) -> torch.Tensor:
        # The quantizer works place by place, so all pictures go through as one row of N places: [1, D, N, 1].
        return self.vq.encode(hidden.T[None, :, :, None]).image_tokens
