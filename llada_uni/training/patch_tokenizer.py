"""Stage `patch_tokenizer`: the image tokenizer of the shipped small model, every patch trained on a question of its own.

A cell of the world is 2 x 2 patches, and each of its patches has its question: top left and bottom right "what is drawn in
this cell?", top right "in which style?", bottom left "on which colour?". The answer must be read from the patch's quantized
vector by a linear map, so the codes become words for concepts, styles and colours, which the language model can combine
anew. It is the shortcut of a known world; the stage `quantizer` learns codes for any pictures with questions.
Straight-through gradients, a moving-average codebook (codebook.py); nothing is reconstructed.
B pictures, N patches a picture (4 x 4), C width of the codebook, K codes.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.training.codebook import CodebookOptions
from llada_uni.training.coded_vision import CodedVisionObjective
from llada_uni.training.images import to_images
from llada_uni.training.objective import Loss
from llada_uni.training.picture_batches import EVALUATION_SEED, degrade, shrink
from llada_uni.training.processes import Processes
from llada_uni.training.reader import even_length
from llada_uni.training.vision import (
    BookSizes,
    VisionSizes,
    preprocessing,
    save_image_tokenizer,
)
from llada_uni.world.concepts import COLORS, CONCEPTS, STYLES
from llada_uni.world.render import render_array
from llada_uni.world.scene import Scene, sample_scene

SIDE = 64
"""Pixels of a picture: 4 x 4 patches of 16 px, two by two in a cell of the world."""

_CONCEPT = {name: i + 1 for i, name in enumerate(CONCEPTS)}
_STYLE = {name: i + 1 for i, name in enumerate(STYLES)}
_COLOR = {name: i for i, name in enumerate(COLORS)}
CLASSES = (len(CONCEPTS) + 1, len(STYLES) + 1, len(COLORS))
"""Answers to the three questions: concepts and nothing, styles and none, colours."""


@dataclass
class PatchTokenizerOptions:
    """Options of the stage.

    count: pictures a slot. features_first: steps on continuous vectors before codes come into use; reseed_until: from this
    step on dead codes stay dead, so that the words keep their meaning. merge: give codes of one meaning one vector at the end.
    """

    count: int = 24
    vision: VisionSizes = field(default_factory=VisionSizes)
    book: BookSizes = field(default_factory=lambda: BookSizes(num_embeddings=64))
    codebook: CodebookOptions = field(default_factory=lambda: CodebookOptions(dead_below=0.0128))
    features_first: int = 2000
    reseed_until: int = 4800
    merge: bool = True

    def build(self, processes: Processes, seed: int) -> PatchTokenizerObjective:
        """The objective with fresh weights from `seed`."""
        torch.manual_seed(seed)
        return PatchTokenizerObjective(self, processes).to(processes.torch_device)


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


def batch_of(rng: random.Random, size: int, split: str = "any") -> tuple[Tensor, Tensor]:
    """Pictures float32 [B, 3, 64, 64] in -1..1 and answers int64 [B, N]."""
    scenes = [sample_scene(rng, split, two_tone=0.2, mixed_styles=0.6) for _ in range(size)]
    # Half of them as a picture of twice the size comes in.
    arrays = [
        render_array(scene, SIDE) if rng.random() < 0.5 else shrink(render_array(scene, 2 * SIDE), SIDE) for scene in scenes
    ]
    return to_images(arrays), torch.from_numpy(np.stack([answers_of(scene) for scene in scenes]))


class PatchTokenizerObjective(CodedVisionObjective):
    """Vision transformer, quantizer and three linear readers."""

    def __init__(self, options: PatchTokenizerOptions, processes: Processes | None = None) -> None:
        super().__init__(options, processes)
        self.vq.post_quant_conv.requires_grad_(False)
        self.readers = nn.ModuleList(nn.Linear(options.book.embed_dim, answers) for answers in CLASSES)
        self.register_buffer("question", question_of_patch())

    def read_loss(self, vectors: Tensor, answers: Tensor) -> tuple[Tensor, float]:
        """Cross-entropy of the patches' own questions (means over each question, added up), and the share of right answers."""
        total, right = vectors.new_zeros(()), 0.0
        for question, reader in enumerate(self.readers):
            chosen = self.question == question
            logits, target = reader(even_length(vectors[:, chosen])), answers[:, chosen]
            total = total + F.cross_entropy(logits.flatten(0, 1), target.flatten())
            right += (logits.argmax(-1) == target).float().mean().item() / len(self.readers)
        return total, right

    def loss(self, step: int, slot: int, rng: random.Random) -> Loss:
        """Reading loss from features, then from codes and features; the weight is the number of pictures."""
        device = self.processes.torch_device
        images, answers = (tensor.to(device) for tensor in batch_of(rng, self.options.count))
        self._last = {"images": images, "answers": answers}
        z = self.vectors(degrade(images, rng))
        count = float(len(z))
        smooth, right = self.read_loss(z, answers)
        if step < self.options.features_first:
            self.codebook.observe(step, slot, z.flatten(0, 1))
            return Loss(smooth * count, count, {"right_features": (right * count, count)})
        q, _ = self.quantize(z, step, slot)
        hard, exact = self.read_loss(q, answers)
        commit = (z - q.detach()).square().sum(-1).mean()
        numbers = {"right_features": right, "right_codes": exact, "commit": commit.item()}
        total = hard + 0.5 * smooth + 0.5 * commit
        return Loss(total * count, count, {name: (value * count, count) for name, value in numbers.items()})

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Right answers from codes on scenes with held-out combinations."""
        images, answers = (t.to(self.processes.torch_device) for t in batch_of(random.Random(EVALUATION_SEED), 256, "heldout"))
        return {"heldout_right_codes": self.read_loss(self.book[self.codes(images)], answers)[1]}

    def fingerprint(self) -> dict[str, Any]:
        return {"vision": asdict(self.options.vision), "book": asdict(self.options.book)}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """image_tokenizer/ of the model directory."""
        if self.options.merge:
            merged = PatchTokenizerObjective(self.options)
            merged.load_state_dict(state)
            print(merge_synonyms(merged.eval()))
            state = merged.state_dict()
        settings = preprocessing(self.options.vision, SIDE)
        save_image_tokenizer(folder / "image_tokenizer", state, settings, self.options.vision, self.options.book)


@torch.no_grad()
def merge_synonyms(model: PatchTokenizerObjective, pictures: int = 4000) -> str:
    """Codes that always give the same answer to the same question become one: the backbone need not learn synonyms.

    They get the same vector (their weighted mean); the nearest-code rule then always names the first of them.
    Returns a line about it.
    """
    rng, uses = random.Random(4242), {}
    questions = model.question.repeat(50).tolist()
    for _ in range(pictures // 50):
        images, answers = batch_of(rng, 50)
        codes = model.codes(degrade(images, rng))
        for question, answer, code in zip(questions, answers.flatten().tolist(), codes.flatten().tolist(), strict=True):
            uses.setdefault(code, Counter())[question, answer] += 1
    meaning = {code: count.most_common(1)[0][0] for code, count in uses.items()}
    book = model.vq.quantize.embedding.weight
    for sense in set(meaning.values()):
        same = [code for code in meaning if meaning[code] == sense]
        weight = torch.tensor([float(uses[code].total()) for code in same])
        book[same] = F.normalize((book[same] * weight[:, None]).sum(0), dim=0)
    return f"{len(set(meaning.values()))} meanings in {len(meaning)} used codes of {len(book)}"
