"""Stage `siglip`: pre-training of the vision transformer on pictures and their captions with the pairwise sigmoid loss.

Every picture of a micro-batch is compared with every caption of it: pairs that belong together are to be told from all
others, each pair for itself (arXiv:2303.15343), so the loss needs no normalization over a batch. Comparing within a
micro-batch, not across them, keeps its loss the same however they are spread over processes; a larger `pictures.count` gives
more strangers to each picture. The vision transformer alone is exported; the quantizer's stage starts from it.
Axes: B pictures and captions, N patches, D width of the vision transformer, P width of the common space, T tokens.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from transformers import SiglipTextConfig, SiglipTextModel, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.image.batched import batched_features, seen_features
from llada_uni.options import options
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss, Stage
from llada_uni.training.tokenizer.picture_batches import EVALUATION_SEED, PictureBatches, PictureOptions, degrade
from llada_uni.training.tokenizer.picture_text import PictureText, TextOptions
from llada_uni.training.tokenizer.vision import VisionSizes, build_vision, load_vision, preprocessing, save_image_tokenizer


@options
class TextEncoderSizes:
    """Sizes of transformers' SiglipTextModel; captions are cut at max_position_embeddings tokens."""

    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    max_position_embeddings: int = 32


@options
class SiglipOptions:
    """Options of the stage. init: image_tokenizer folder whose vision transformer is trained on, "" for a fresh one.

    seen: share of a picture's patches that a training step looks at, others each time; less of it trains on more pictures an
    hour, and a small transformer learns fewer by heart (arXiv:2212.00794). whole_from: from this step on all patches.
    evaluate_pictures: held-out pictures of an evaluation (whole micro-batches, all patches).
    """

    init: str = ""
    pictures: PictureOptions = field(default_factory=lambda: PictureOptions(count=64))
    text: TextOptions = field(default_factory=TextOptions)
    vision: VisionSizes = field(default_factory=VisionSizes)
    text_encoder: TextEncoderSizes = field(default_factory=TextEncoderSizes)
    seen: Annotated[float, Field(gt=0, le=1)] = 1.0
    whole_from: int = 100_000_000
    evaluate_pictures: int = 256

    def build_model(self) -> nn.Module:
        """The networks alone, for counting; also on the meta device."""
        return SiglipStage(self)

    def build(self, processes: Processes, seed: int) -> SiglipStage:
        """The stage with fresh weights from `seed`."""
        torch.manual_seed(seed)
        stage = SiglipStage(self, processes)
        if self.init:
            load_vision(stage.vision, self.init)
        return stage.to(processes.torch_device)


def sigmoid_loss(logits: Tensor, same: Tensor | None = None) -> Tensor:
    """Sum over all pairs of -log sigmoid(label * logit); logits [B, B].

    same: bool [B, B], True where image and caption belong together (label 1, else -1); None: on the diagonal alone.
    """
    if same is None:
        same = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum()


def same_captions(ids: Tensor) -> Tensor:
    """bool [B, B] of captions int64 [B, T]: True where two are equal. An equal caption is no stranger's, whoever wrote it."""
    return (ids[:, None] == ids[None]).all(-1)


class Captioned(NamedTuple):
    """images float32 [B, 3, H, W] in -1..1; ids int64 [B, T] of their captions; seen int64 [B, S]: patches, None: all."""

    images: Tensor
    ids: Tensor
    seen: Tensor | None = None


class SiglipStage(Stage):
    """Vision transformer with attention pooling, text encoder, temperature and bias."""

    def __init__(self, options: SiglipOptions, processes: Processes | None = None) -> None:
        super().__init__(processes)
        self.options = options
        vision, text = options.vision, options.text_encoder
        self.vision = build_vision(vision)
        self.pool = SiglipMultiheadAttentionPoolingHead(
            SiglipVisionConfig(
                hidden_size=vision.hidden_size,
                intermediate_size=vision.intermediate_size,
                num_attention_heads=vision.num_heads,
            )
        )
        self.text_encoder = SiglipTextModel(
            SiglipTextConfig(
                **asdict(text),
                vocab_size=options.text.vocab_size,
                projection_size=vision.hidden_size,
                bos_token_id=None,  # captions are ended by `caption_ids`
                eos_token_id=None,
            )
        )
        # Most pairs do not belong together: the start says so, or the first steps would do nothing but learn it.
        self.log_scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        self.bias = nn.Parameter(torch.tensor([-10.0]))
        self.batches = PictureBatches(options.pictures, need="caption")
        self.text = PictureText(options.text, self.batches)

    def image_vectors(self, images: Tensor, seen: Tensor | None = None) -> Tensor:
        """Unit vectors [B, P] of pictures [B, 3, H, W] in -1..1, from the patches `seen` int64 [B, S] or from all."""
        features = batched_features(self.vision, images) if seen is None else seen_features(self.vision, images, seen)
        return F.normalize(self.pool(features), dim=-1)

    def text_vectors(self, ids: Tensor) -> Tensor:
        """Unit vectors [B, P] of captions int64 [B, T], padded with end of text: the last position is the pooled one."""
        return F.normalize(self.text_encoder(input_ids=ids).pooler_output, dim=-1)

    def caption_ids(self, captions: list[str]) -> Tensor:
        """int64 [B, max_position_embeddings]: cut, or filled up with end of text."""
        length, end = self.options.text_encoder.max_position_embeddings, self.text.tokenizer.eos_id
        rows = [self.text.text(caption)[: length - 1] for caption in captions]
        return torch.tensor([row + [end] * (length - len(row)) for row in rows])

    def logits(self, images: Tensor, ids: Tensor, seen: Tensor | None = None) -> Tensor:
        """[B, B]: row picture, column caption."""
        return self.image_vectors(images, seen) @ self.text_vectors(ids).T * self.log_scale.exp() + self.bias

    def batch(self, step: int, micro_batch: int, generators: Generators) -> Captioned:
        images, pictures = self.batches.draw(generators.python)
        if self.options.pictures.noisy:
            images = degrade(images, generators)
        seen = self.seen_patches(images, generators.torch) if step < self.options.whole_from else None
        return Captioned(images, self.caption_ids([picture.caption for picture in pictures]), seen)

    def seen_patches(self, images: Tensor, generator: torch.Generator) -> Tensor | None:
        """int64 [B, S], drawn without repetition for each picture, in raster order; None where all are seen."""
        patches = (images.shape[2] // self.options.vision.patch_size) * (images.shape[3] // self.options.vision.patch_size)
        count = max(1, round(self.options.seen * patches))
        if count == patches:
            return None
        return torch.rand(len(images), patches, generator=generator).topk(count).indices.sort().values

    def loss(self, batch: Captioned) -> Loss:
        """Sigmoid loss of all pairs of the micro-batch, summed; the weight is the number of pictures, as in the paper."""
        logits = self.logits(batch.images, batch.ids, batch.seen).float()
        count = float(len(logits))
        metrics = {name: (share * count, count) for name, share in retrieval(logits.detach()).items()}
        metrics |= {"images": (count, 0.0), "scale": (self.log_scale.exp().item(), 1.0), "bias": (self.bias.item(), 1.0)}
        return Loss(sigmoid_loss(logits, same_captions(batch.ids)), count, metrics)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """The loss, and retrieval among the pictures of a micro-batch, on held-out pictures."""
        rng = random.Random(EVALUATION_SEED)
        rounds = max(1, self.options.evaluate_pictures // self.options.pictures.count)
        sums: dict[str, float] = {}
        for _ in range(rounds):
            images, pictures = self.batches.draw(rng, split="heldout")
            ids = self.caption_ids([picture.caption for picture in pictures])
            device = self.processes.torch_device
            logits = self.logits(images.to(device), ids.to(device)).float()
            loss = sigmoid_loss(logits, same_captions(ids).to(device)).item() / len(logits)
            found = {f"heldout_{name}": share for name, share in retrieval(logits).items()} | {"loss": loss}
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value / rounds
        return sums

    def left_out(self) -> list[str]:
        return self.batches.bad.found

    def shard_units(self) -> list[nn.Module]:
        return [*self.vision.blocks, *self.text_encoder.encoder.layers]

    def fingerprint(self) -> dict[str, Any]:
        sizes = {"vision": asdict(self.options.vision), "text_encoder": asdict(self.options.text_encoder)}
        return sizes | {"text": self.text.fingerprint()}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """image_tokenizer/ with the vision transformer alone."""
        settings = preprocessing(self.options.vision, self.options.pictures.side)
        save_image_tokenizer(IMAGE_TOKENIZER.path(folder), state, settings, self.options.vision)


def retrieval(logits: Tensor) -> dict[str, float]:
    """Shares of pictures whose own caption scores best, and of captions whose own picture does; logits [B, B]."""
    own = torch.arange(len(logits), device=logits.device)
    return {
        "picture_to_text": (logits.argmax(1) == own).float().mean().item(),
        "text_to_picture": (logits.argmax(0) == own).float().mean().item(),
    }
