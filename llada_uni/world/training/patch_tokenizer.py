"""Stage `patch_tokenizer`: the image tokenizer of the shipped small model, every patch trained on a question of its own.

A cell of the world is 2 x 2 patches, and each of its patches has its question: top left "where is this?", top right "what is
drawn here?", bottom left "on which color?", bottom right "in which style?". Every answer has a code, which is the mean vector
of its patches, and a patch's vector must lie nearest to the code of its answer: codes are words for places, concepts, colors
and styles, which the language model can combine again. It is the shortcut of a known world; the stage `quantizer` learns codes
for any pictures with questions. First the answers are read from the vectors by linear maps; codes follow once the vectors mean
something. Nothing is reconstructed.
B pictures, N patches a picture (6 x 6), C width of the codebook, K codes, one for each answer.
"""

from __future__ import annotations

import random
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.options import options
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss
from llada_uni.training.tokenizer.codebook import CodebookOptions
from llada_uni.training.tokenizer.coded_vision import CodedVisionStage
from llada_uni.training.tokenizer.picture_batches import EVALUATION_SEED, degrade, shrink, to_images
from llada_uni.training.tokenizer.probe_lm import even_length
from llada_uni.training.tokenizer.vision import (
    BookSizes,
    VisionSizes,
    preprocessing,
    save_image_tokenizer,
)
from llada_uni.world import concepts
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, STYLES
from llada_uni.world.render import render_array
from llada_uni.world.sampling import crowded_scene, sample_scene
from llada_uni.world.scene import Scene

SIDE = 96
"""Pixels of a picture: 6 x 6 patches of 16 px, two by two in a cell of the world."""
_GRID = 2 * concepts.SIDE

_CONCEPT = {name: i + 1 for i, name in enumerate(CONCEPTS)}
_STYLE = {name: i + 1 for i, name in enumerate(STYLES)}
_COLOR = {name: i for i, name in enumerate(COLORS)}
ANSWERS = (len(CELLS), len(CONCEPTS) + 1, len(COLORS), len(STYLES) + 1)
"""Answers to the four questions: places, concepts and nothing, colors, styles and none."""
MEANINGS = sum(ANSWERS)
FIRST = torch.tensor([0, *ANSWERS]).cumsum(0)[:-1]
"""int64 [4]: the code of each question's first answer."""
_MEAN_DECAY = 0.98  # of the mean vector of every answer, before there are codes
_TEMPERATURE = 0.1  # of the cosines to the codes


@options
class PatchTokenizerOptions:
    """Options of the stage. count: pictures a micro-batch. features_first: steps on continuous vectors, before codes."""

    count: int = 24
    vision: VisionSizes = field(default_factory=lambda: VisionSizes(image_size=SIDE))
    book: BookSizes = field(default_factory=lambda: BookSizes(num_embeddings=MEANINGS))
    codebook: CodebookOptions = field(default_factory=CodebookOptions)
    features_first: int = 2000

    def build(self, processes: Processes, seed: int) -> PatchTokenizerStage:
        """The stage with fresh weights from `seed`. UserError for fewer codes than answers."""
        if self.book.num_embeddings < MEANINGS:
            raise UserError(
                f"book.num_embeddings is {self.book.num_embeddings}; there are {MEANINGS} answers, each needs a code"
            )
        torch.manual_seed(seed)
        return PatchTokenizerStage(self, processes).to(processes.torch_device)


def question_of_patch() -> Tensor:
    """int64 [N]: 0 where, 1 what, 2 color, 3 style, for the 6 x 6 patches in raster order."""
    return torch.tensor([[0, 1], [2, 3]]).repeat(concepts.SIDE, concepts.SIDE).flatten()


def answers_of(scene: Scene) -> np.ndarray:
    """int64 [N]: the right answer of every patch."""
    out = np.zeros((_GRID, _GRID), np.int64)
    for cell, thing in enumerate(scene.cells):
        y, x = (cell // concepts.SIDE) * 2, (cell % concepts.SIDE) * 2
        out[y, x] = cell
        out[y, x + 1] = 0 if thing is None else _CONCEPT[thing.concept]
        out[y + 1, x] = _COLOR[scene.background]
        out[y + 1, x + 1] = 0 if thing is None else _STYLE[thing.style]
    return out.ravel()


def batch_of(rng: random.Random, scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Pictures float32 [B, 3, 96, 96] in -1..1 and answers int64 [B, N]."""
    # Half of them as a picture of twice the size comes in.
    arrays = [
        render_array(scene, SIDE) if rng.random() < 0.5 else shrink(render_array(scene, 2 * SIDE), SIDE) for scene in scenes
    ]
    return to_images(arrays), torch.from_numpy(np.stack([answers_of(scene) for scene in scenes]))


class Answered(NamedTuple):
    """images float32 [B, 3, H, W] in -1..1; answers int64 [B, N]; the step and the micro-batch they are for."""

    step: int
    micro_batch: int
    images: Tensor
    answers: Tensor


class PatchTokenizerStage(CodedVisionStage):
    """Vision transformer, quantizer and four linear readers."""

    question: Tensor
    means: Tensor

    def __init__(self, options: PatchTokenizerOptions, processes: Processes | None = None) -> None:
        super().__init__(options, processes)
        self.vq.post_quant_conv.requires_grad_(False)
        self.readers = nn.ModuleList(nn.Linear(options.book.embed_dim, answers) for answers in ANSWERS)
        self.register_buffer("question", question_of_patch())
        self.register_buffer("means", torch.zeros(MEANINGS, options.book.embed_dim))
        self._seen: Tensor | None = None  # sums of this step's vectors by answer, and their numbers: [K, C + 1]

    def read_loss(self, vectors: Tensor, answers: Tensor) -> tuple[Tensor, float]:
        """Cross-entropy of the patches' own questions (means over each question, added up), and the share of right answers."""
        total, right = vectors.new_zeros(()), 0.0
        for question, reader in enumerate(self.readers):
            chosen = self.question == question
            logits, target = reader(even_length(vectors[:, chosen])), answers[:, chosen]
            total = total + F.cross_entropy(logits.flatten(0, 1), target.flatten())
            right += (logits.argmax(-1) == target).float().mean().item() / len(self.readers)
        return total, right

    def batch(self, step: int, micro_batch: int, generators: Generators) -> Answered:
        rng = generators.python
        images, answers = batch_of(rng, [crowded_scene(rng) for _ in range(self.options.count)])
        return Answered(step, micro_batch, degrade(images, generators), answers)

    def loss(self, batch: Answered) -> Loss:
        """Reading loss from vectors, then also that of choosing the code; the weight is the number of pictures."""
        step, micro_batch, images, answers = batch
        z = self.vectors(images)
        count = float(len(z))
        smooth, right = self.read_loss(z, answers)
        vectors, wanted = z.flatten(0, 1), self.code_of(answers).flatten()
        metrics = {"right_features": (right * count, count), "images": (count, 0.0)}
        if step < self.options.features_first:
            self._see(vectors.detach(), wanted)
            return Loss(smooth * count, count, metrics)
        cosines = vectors @ self.book.T
        self.codebook.observe(step, micro_batch, vectors, wanted, cosines.detach().gather(1, wanted[:, None])[:, 0])
        chosen = (cosines.argmax(-1) == wanted).float().mean().item()
        total = F.cross_entropy(cosines / _TEMPERATURE, wanted) + 0.5 * smooth
        return Loss(total * count, count, {**metrics, "right_codes": (chosen * count, count)})

    def code_of(self, answers: Tensor) -> Tensor:
        """The codes int64 [B, N] of the answers [B, N] to the patches' questions."""
        return answers + FIRST.to(answers.device)[self.question]

    def _see(self, vectors: Tensor, codes: Tensor) -> None:
        """Adds the vectors [P, C] of one micro-batch to the step's sums by their codes [P]."""
        if self._seen is None:
            self._seen = vectors.new_zeros(MEANINGS, vectors.shape[-1] + 1)
        self._seen.index_add_(0, codes, F.pad(vectors, (0, 1), value=1.0))

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, float]:
        """Follows the mean vector of every answer: at first beside the codes, then as the codes."""
        book = self.vq.quantize.embedding.weight
        if step >= self.options.features_first:
            self.codebook.update(book, reseed=False)
            return self.codebook.metrics()
        assert self._seen is not None  # every step before features_first adds to it
        seen, self._seen = self.processes.sum(self._seen), None
        there = seen[:, -1] > 0
        self.means[there] = torch.lerp(seen[there, :-1] / seen[there, -1:], self.means[there], _MEAN_DECAY)
        if step == self.options.features_first - 1:
            book[:MEANINGS] = F.normalize(self.means, dim=-1)
        return {}

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Share of patches with the code of their answer, and of scenes right throughout, among held-out scenes; the loss there
        once codes are in use, whatever the step."""
        rng = random.Random(EVALUATION_SEED)
        scenes = [sample_scene(rng, "heldout", numbers=0.2) for _ in range(256)]
        images, answers = (tensor.to(self.processes.torch_device) for tensor in batch_of(rng, scenes))
        right = self.codes(images) == self.code_of(answers)
        z = self.vectors(images)
        smooth, _ = self.read_loss(z, answers)
        chosen = F.cross_entropy(z.flatten(0, 1) @ self.book.T / _TEMPERATURE, self.code_of(answers).flatten())
        found = {"heldout_right_codes": right.float(), "heldout_right_scenes": right.all(1).float()}
        return {name: share.mean().item() for name, share in found.items()} | {"loss": (chosen + 0.5 * smooth).item()}

    def fingerprint(self) -> dict[str, Any]:
        return {"vision": asdict(self.options.vision), "book": asdict(self.options.book)}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """image_tokenizer/ of the model directory."""
        settings = preprocessing(self.options.vision, SIDE)
        save_image_tokenizer(IMAGE_TOKENIZER.path(folder), state, settings, self.options.vision, self.options.book)
