"""Trains the image tokenizer: a vision transformer and a vector quantizer whose codes answer questions about a picture.

    python -m llada_uni.training.tokenizer --out runs/tokenizer --steps 4000

As in the report, nothing is reconstructed: the codes are trained on understanding alone. A cell of the world is 2 x 2
patches, and each of its patches has its question: top left and bottom right "what is drawn in this cell?", top right
"in which style?", bottom left "on which colour?". The answer must be read from the patch's quantized vector by a linear
map, so the codes become words for concepts, styles and colours, which the language model can combine anew.
The classes are transformers' (GlmImageVisionModel, GlmImageVQVAE); straight-through gradients, a moving-average
codebook, dead codes re-seeded from the batch.

B pictures, N patches a picture (4 x 4), D width of the transformer, C width of the codebook, K codes.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import GlmImageVisionModel, GlmImageVQVAE
from transformers.models.glm_image.configuration_glm_image import GlmImageVisionConfig, GlmImageVQVAEConfig

from llada_uni.image.preprocess import Preprocessing
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.training.images import to_images
from llada_uni.training.loop import LoopConfig, run
from llada_uni.world.concepts import COLORS, CONCEPTS, STYLES
from llada_uni.world.render import render_array
from llada_uni.world.scene import Scene, sample_scene

SIDE = 64
PATCH = 16
VISION = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_heads": 4,
    "depth": 4,
    "patch_size": PATCH,
    "image_size": SIDE,
    "in_channels": 3,
    "hidden_act": "gelu",
    "attention_bias": True,
    "attention_dropout": 0.0,
    "layer_norm_eps": 1e-6,
    "spatial_merge_size": 1,
}
QUANTIZER = {"num_embeddings": 64, "embed_dim": 64, "latent_channels": 128, "beta": 0.25}

_CONCEPT = {name: i + 1 for i, name in enumerate(CONCEPTS)}
_STYLE = {name: i + 1 for i, name in enumerate(STYLES)}
_COLOR = {name: i for i, name in enumerate(COLORS)}
CLASSES = (len(CONCEPTS) + 1, len(STYLES) + 1, len(COLORS))
"""Answers to the three questions: concepts and nothing, styles and none, colours."""


def question_of_patch() -> Tensor:
    """int64 [N]: 0 what, 1 style, 2 colour, for the 4 x 4 patches in raster order."""
    return torch.tensor([[0, 1, 0, 1], [2, 0, 2, 0]] * 2).flatten()


def answers_of(scene: Scene) -> np.ndarray:
    """int64 [N]: the right answer of every patch."""
    out = np.zeros((4, 4), np.int64)
    for i, thing in enumerate(scene.cells):
        y, x = (i // 2) * 2, (i % 2) * 2
        what = 0 if thing is None else _CONCEPT[thing.concept]
        out[y, x] = out[y + 1, x + 1] = what
        out[y, x + 1] = 0 if thing is None else _STYLE[thing.style]
        out[y + 1, x] = _COLOR[scene.color_of(i)]
    return out.ravel()


def patchify(images: Tensor, patch: int = PATCH) -> Tensor:
    """[B, 3, H, W] -> [B, N, 3 * patch * patch] in raster order, channels first inside a patch."""
    b, c, h, w = images.shape
    grid = images.view(b, c, h // patch, patch, w // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // patch) * (w // patch), c * patch * patch)


def batched_features(vision: GlmImageVisionModel, images: Tensor) -> Tensor:
    """Same as `vision(...)` for a batch of equal pictures, without its loop over pictures: [B, 3, H, W] -> [B, N, D].

    Equal to the class's own forward (tests/training/test_tokenizer.py); pictures must have the trained size,
    where the learned positions need no interpolation.
    """
    b = images.shape[0]
    heads = vision.config.num_heads
    x = vision.patch_embed(patchify(images, vision.patch_size).flatten(0, 1)).view(b, -1, vision.config.hidden_size)
    x = x + vision.embeddings.position_embedding.weight
    for block in vision.blocks:
        qkv = block.attn.qkv(block.norm1(x))
        q, k, v = qkv.view(b, x.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + block.attn.proj(attended)
        x = x + block.mlp(block.norm2(x))
    return x


def degrade(images: Tensor, rng: random.Random) -> Tensor:
    """Noise, small shifts, blur and gain, so that pictures from the decoder are read like rendered ones."""
    out = images
    if rng.random() < 0.5:
        out = out.roll((rng.choice((-1, 0, 1)), rng.choice((-1, 0, 1))), dims=(2, 3))
    if rng.random() < 0.4:
        soft = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        out = torch.lerp(out, soft, rng.random())
    if rng.random() < 0.5:
        out = out * (1 + 0.1 * (rng.random() - 0.5)) + 0.1 * (rng.random() - 0.5)
    return (out + torch.randn_like(out) * 0.12 * rng.random()).clamp(-1, 1)


def batch_of(rng: random.Random, size: int, split: str = "any") -> tuple[Tensor, Tensor, list[Scene]]:
    """Pictures float32 [B, 3, 64, 64] in -1..1, answers int64 [B, N], scenes."""
    scenes = [sample_scene(rng, split, two_tone=0.2, mixed_styles=0.6) for _ in range(size)]
    arrays = []
    for scene in scenes:
        if rng.random() < 0.5:
            arrays.append(render_array(scene, SIDE))
        else:  # as a picture of twice the size comes in: rendered at 128, resized by the preprocessing's filter
            picture = Image.fromarray(render_array(scene, 2 * SIDE))
            arrays.append(np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    images = to_images(arrays)
    return images, torch.from_numpy(np.stack([answers_of(s) for s in scenes])), scenes


class TokenizerObjective(nn.Module):
    """Vision transformer, quantizer and the three linear readers; owns the moving-average codebook."""

    def __init__(self, decay: float = 0.97) -> None:
        super().__init__()
        self.vision = GlmImageVisionModel(GlmImageVisionConfig(**VISION))
        self.vq = GlmImageVQVAE(GlmImageVQVAEConfig(**QUANTIZER))
        self.vq.quantize.embedding.weight.requires_grad_(False)
        self.vq.post_quant_conv.requires_grad_(False)
        self.readers = nn.ModuleList(nn.Linear(QUANTIZER["embed_dim"], n) for n in CLASSES)
        self.register_buffer("question", question_of_patch())
        self.register_buffer("share", torch.zeros(QUANTIZER["num_embeddings"]))
        self.decay = decay
        self.reseed = True

    def project(self, images: Tensor) -> Tensor:
        """Unit vectors before quantization [B, N, C]."""
        conv = self.vq.quant_conv
        features = batched_features(self.vision, images)
        return F.normalize(F.linear(features, conv.weight[:, :, 0, 0], conv.bias), dim=-1)

    def codes(self, images: Tensor) -> Tensor:
        """Codes int64 [B, N]."""
        book = F.normalize(self.vq.quantize.embedding.weight, dim=-1)
        return (self.project(images) @ book.T).argmax(-1)

    def read_loss(self, vectors: Tensor, answers: Tensor) -> tuple[Tensor, float]:
        """Cross-entropy of every patch's own question, and the share of right answers."""
        total, right = vectors.new_zeros(()), 0
        for q, reader in enumerate(self.readers):
            chosen = self.question == q
            logits = reader(vectors[:, chosen] * 8.0)
            target = answers[:, chosen]
            total = total + F.cross_entropy(logits.flatten(0, 1), target.flatten())
            right += (logits.argmax(-1) == target).float().mean().item() / len(self.readers)
        return total, right

    def update_codebook(self, vectors: Tensor, codes: Tensor, step: int) -> None:
        """Moves each code towards its members; a code that nobody uses takes the place of a badly served vector."""
        book = self.vq.quantize.embedding.weight
        with torch.no_grad():
            flat, ids = vectors.flatten(0, 1), codes.flatten()
            count = torch.bincount(ids, minlength=len(book)).float()
            total = torch.zeros_like(book).index_add_(0, ids, flat)
            mean = F.normalize(total / count.clamp(min=1)[:, None], dim=-1)
            used = count > 0
            book[used] = F.normalize(torch.lerp(book[used], mean[used], 1 - self.decay), dim=-1)
            self.share.lerp_(count / count.sum(), 0.02)
            dead = (self.share < 2e-4).nonzero().flatten()
            if self.reseed and len(dead) and step % 20 == 0:
                fit = (flat * F.normalize(book[ids], dim=-1)).sum(-1)
                worst = fit.topk(4 * len(dead), largest=False).indices
                pick = worst[torch.randperm(len(worst))[: len(dead)]]
                book[dead] = flat[pick]
                self.share[dead] = 1.0 / len(book)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/tokenizer")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = TokenizerObjective()

    def loss(step: int, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        images, answers, _ = batch_of(rng, args.batch)
        z = model.project(degrade(images, rng))
        smooth, right = model.read_loss(z, answers)
        if step < args.steps // 4:  # features first, then codes
            return smooth, {"right_features": right}
        if step == args.steps // 4:
            model.vq.quantize.embedding.weight.data.copy_(_spread(z.detach().flatten(0, 1)))
            model.share.fill_(1.0 / QUANTIZER["num_embeddings"])
        book = F.normalize(model.vq.quantize.embedding.weight, dim=-1)
        codes = (z.detach() @ book.T).argmax(-1)
        quantized = book[codes]
        model.reseed = step < args.steps * 0.6  # later the words stay what they are
        model.update_codebook(z.detach(), codes, step)
        hard, exact = model.read_loss(z + (quantized - z).detach(), answers)
        commit = (z - quantized).square().sum(-1).mean()
        numbers = {
            "right_features": right,
            "right_codes": exact,
            "used": float((model.share > 1e-3).sum()),
            "commit": commit.item(),
        }
        return hard + 0.5 * smooth + 0.5 * commit, numbers

    run(nn.ModuleDict({"model": model}), loss, LoopConfig(args.steps, 1e-3, args.out, weight_decay=0.05))
    merge_synonyms(model)
    config = {"vision_config": VISION, "vq_config": QUANTIZER}
    tokenizer = ImageTokenizer(config, Preprocessing.from_json(PREPROCESSOR))
    tokenizer.vision.load_state_dict(model.vision.state_dict())
    tokenizer.vq.load_state_dict(model.vq.state_dict())
    tokenizer.save_pretrained(f"{args.out}/image_tokenizer")


@torch.no_grad()
def merge_synonyms(model: TokenizerObjective, pictures: int = 4000) -> None:
    """Codes that always give the same answer to the same question become one: the backbone need not learn synonyms.

    They get the same vector (their weighted mean); the nearest-code rule then always names the first of them.
    """
    rng, uses = random.Random(4242), {}
    for _ in range(pictures // 50):
        images, answers, _ = batch_of(rng, 50)
        codes = model.codes(degrade(images, rng))
        for question, answer, code in zip(
            model.question.repeat(50).tolist(), answers.flatten().tolist(), codes.flatten().tolist(), strict=True
        ):
            uses.setdefault(code, Counter())[question, answer] += 1
    meaning = {code: count.most_common(1)[0][0] for code, count in uses.items()}
    book = model.vq.quantize.embedding.weight
    for sense in set(meaning.values()):
        same = [code for code in meaning if meaning[code] == sense]
        weight = torch.tensor([float(uses[code].total()) for code in same])
        book[same] = F.normalize((book[same] * weight[:, None]).sum(0), dim=0)
    print(f"{len(set(meaning.values()))} meanings in {len(meaning)} used codes of {len(book)}")


def _spread(vectors: Tensor) -> Tensor:
    """Farthest-point choice of QUANTIZER codes from one batch of vectors [M, C]: one code a cluster from the start."""
    chosen = [vectors[0]]
    nearest = vectors @ chosen[0]
    for _ in range(QUANTIZER["num_embeddings"] - 1):
        chosen.append(vectors[nearest.argmin()])
        nearest = torch.maximum(nearest, vectors @ chosen[-1])
    return torch.stack(chosen)


PREPROCESSOR = {
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "patch_size": PATCH,
    "temporal_patch_size": 1,
    "merge_size": 1,
    # Every square picture becomes 64 x 64; the slack keeps rounding from choosing 32.
    "understand_min_pixels": 4000,
    "understand_max_pixels": 4200,
    "understand_max_pixels_multi": 4200,
    "edit_max_cells": (SIDE // 32) ** 2,
    "edit_scale": True,
    "size_factor": 32,
}


if __name__ == "__main__":
    main()
