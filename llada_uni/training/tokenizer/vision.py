"""The image tokenizer in training: its sizes, its parts as transformers' classes, and its export.

Both stages of the tokenizer, the image-text pre-training (siglip.py) and the quantizer (quantizer.py), build the same
vision transformer here, so that the second can start from what the first has exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import GlmImageVisionConfig, GlmImageVisionModel, GlmImageVQVAE, GlmImageVQVAEConfig

from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.files.weights import WeightFiles, check_names, read_json, write_json, write_part_weights
from llada_uni.image.batched import batch_attention
from llada_uni.image.geometry import Preprocessing
from llada_uni.image.tokenizer import released_tokenizer_config, to_module_name, to_released_name
from llada_uni.options import options
from llada_uni.training.tokenizer.vision_start import start_mimetic

_SHAPES = ("hidden_size", "intermediate_size", "num_heads", "depth", "patch_size", "image_size")


@options
class VisionSizes:
    """Sizes of the vision transformer; the fields are those of the released config.json, the defaults the small world's.

    image_size: side in pixels that the learned positions stand for (other sizes are interpolated).
    initializer_range: deviation of fresh weights. start: "normal", or "mimetic" for fresh attention that looks near itself
    (vision_start.py): a small transformer then needs fewer images.
    """

    hidden_size: int = 128
    intermediate_size: int = 384
    num_heads: int = 4
    depth: int = 4
    patch_size: int = 16
    image_size: int = 64
    initializer_range: float = 0.02
    start: Literal["normal", "mimetic"] = "normal"

    def config(self) -> dict[str, Any]:
        """vision_config of config.json; what is not a size is as released."""
        sizes = asdict(self)
        del sizes["start"]  # of the weights, not of the network
        return released_tokenizer_config()["vision_config"] | sizes


@options
class BookSizes:
    """num_embeddings: codes; embed_dim: their width (released: 16384 x 2048)."""

    num_embeddings: int = 256
    embed_dim: int = 64

    def config(self, vision: VisionSizes) -> dict[str, Any]:
        """vq_config of config.json."""
        return released_tokenizer_config()["vq_config"] | asdict(self) | {"latent_channels": vision.hidden_size}


def build_vision(sizes: VisionSizes) -> GlmImageVisionModel:
    """The vision transformer with fresh weights from torch's global generator, for batches of pictures of one size."""
    vision = batch_attention(GlmImageVisionModel(GlmImageVisionConfig(**sizes.config())))
    if sizes.start == "mimetic":
        start_mimetic(vision)
    return vision


def build_quantizer(sizes: BookSizes, vision: VisionSizes) -> GlmImageVQVAE:
    """The quantizer. Its codebook is a buffer: it follows averages, not gradients, and sharding leaves it whole."""
    vq = GlmImageVQVAE(GlmImageVQVAEConfig(**sizes.config(vision)))
    embedding = vq.quantize.embedding
    book = embedding.weight.detach()
    del embedding.weight
    embedding.register_buffer("weight", book)
    return vq


def load_vision(vision: GlmImageVisionModel, folder: str) -> None:
    """Fills `vision` from an image_tokenizer folder, with or without a quantizer in it. UserError when sizes differ."""
    stored = read_json(Path(folder) / "config.json").get("vision_config", {})
    for name in _SHAPES:
        wanted = getattr(vision.config, name)
        if stored.get(name) != wanted:
            raise UserError(f"{folder} was made with {name} {stored.get(name)}, this recipe has {wanted}")
    weights, prefix = WeightFiles(folder, IMAGE_TOKENIZER.weights), "vision."
    names = {to_module_name(name).removeprefix(prefix): name for name in weights if to_module_name(name).startswith(prefix)}
    check_names(weights.path, set(vision.state_dict()), set(names))
    vision.load_state_dict({name: weights.tensor(stored) for name, stored in names.items()})


def preprocessing(sizes: VisionSizes, side: int) -> Preprocessing:
    """How users' pictures are shaped for a tokenizer trained on squares of `side` px.

    At the released sizes (side 512 and more) the released rules hold; below, every picture becomes one square of `side`
    where its shape allows it. The slack keeps rounding from choosing the next smaller square.
    """
    if side >= 512:
        return Preprocessing(patch_size=sizes.patch_size)
    factor = 2 * sizes.patch_size  # the decoder draws two pixels for one
    if side % factor:
        raise UserError(f"side {side} must be a multiple of twice the patch size, {factor}")
    least, most = round(side * side * 0.98), round(side * side * 1.025)
    return Preprocessing(
        patch_size=sizes.patch_size,
        size_factor=factor,
        understand_min_pixels=least,
        understand_max_pixels=most,
        understand_max_pixels_multi=most,
        edit_max_cells=(side // factor) ** 2,
        edit_scale=True,
    )


def save_image_tokenizer(
    folder: Path, state: Mapping[str, Tensor], settings: Preprocessing, vision: VisionSizes, book: BookSizes | None = None
) -> None:
    """Writes image_tokenizer/ in the released layout from tensors named `vision.*` and `vq.*`.

    Without `book` only the vision transformer is written: enough to start the quantizer's stage from.
    """
    parts = ("vision.", "vq.") if book else ("vision.",)
    tensors = {to_released_name(name): tensor for name, tensor in state.items() if name.startswith(parts)}
    config = {"vision_config": vision.config()} | ({"vq_config": book.config(vision)} if book else {})
    write_part_weights(folder, IMAGE_TOKENIZER, tensors, None)
    write_json(folder / "preprocessor_config.json", settings.to_json())
    write_json(folder / "config.json", config)
