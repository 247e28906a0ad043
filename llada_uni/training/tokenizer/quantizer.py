"""Stage `quantizer`: the codebook of the image tokenizer, trained through a small language model on understanding.

As in the report (arXiv:2604.20796, image tokenizer), nothing is reconstructed: codes are good when questions about the
picture can be answered from them. A picture becomes unit vectors z; each is replaced by its nearest code q (straight
through: the gradient of q goes to z), and the language model of probe_lm.py answers the picture's questions from the vectors.
For half of the pictures it gets z itself: the vision transformer then always has a clear gradient, and what codes
lose against continuous vectors can be read from one and the same model. The codebook is a moving average (codebook.py).
Axes: B pictures, N patches of a picture, D width of the vision transformer, C width of the codebook, K codes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.data.pictures import Picture
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.image.batched import nearest_codes
from llada_uni.options import options
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Generators, Loss
from llada_uni.training.tokenizer.codebook import CodebookOptions
from llada_uni.training.tokenizer.coded_vision import CodedVisionStage
from llada_uni.training.tokenizer.picture_batches import EVALUATION_SEED, PictureBatches, PictureOptions, degrade
from llada_uni.training.tokenizer.picture_text import PictureText, TextOptions
from llada_uni.training.tokenizer.probe_lm import (
    Pairs,
    ProbeLM,
    ProbeLMOptions,
    choose_questions,
    even_length,
    pack_pairs,
    right_pairs,
)
from llada_uni.training.tokenizer.vision import (
    BookSizes,
    VisionSizes,
    load_vision,
    preprocessing,
    save_image_tokenizer,
)


@options
class QuantizerOptions:
    """Options of the stage.

    init: image_tokenizer folder whose vision transformer is trained on (stage `siglip`), "" for a fresh one.
    questions: asked about each picture at most; captions: part of the pictures whose caption is asked as well.
    features_first: steps on continuous vectors before codes come into use; reseed_until: from this step on dead codes stay
    dead, so that the words keep their meaning. commit: weight of |z - q|^2. evaluate_pictures: held-out pictures of an
    evaluation.
    """

    init: str = ""
    pictures: PictureOptions = field(default_factory=PictureOptions)
    text: TextOptions = field(default_factory=TextOptions)
    vision: VisionSizes = field(default_factory=VisionSizes)
    book: BookSizes = field(default_factory=BookSizes)
    codebook: CodebookOptions = field(default_factory=CodebookOptions)
    probe_lm: ProbeLMOptions = field(default_factory=ProbeLMOptions)
    questions: int = 8
    captions: float = 0.5
    features_first: int = 1000
    reseed_until: int = 100_000
    commit: float = 0.5
    evaluate_pictures: int = 256

    def build_model(self) -> nn.Module:
        """The networks alone, for counting; also on the meta device."""
        return QuantizerStage(self)

    def build(self, processes: Processes, seed: int) -> QuantizerStage:
        """The stage with fresh weights from `seed`."""
        torch.manual_seed(seed)
        stage = QuantizerStage(self, processes)
        if self.init:
            load_vision(stage.vision, self.init)
        return stage.to(processes.torch_device)


class Asked(NamedTuple):
    """images float32 [B, 3, H, W] in -1..1 and the questions about them; the step and the micro-batch they are for."""

    step: int
    micro_batch: int
    images: Tensor
    pairs: Pairs


class QuantizerStage(CodedVisionStage):
    """Vision transformer, quantizer and language model."""

    def __init__(self, options: QuantizerOptions, processes: Processes | None = None) -> None:
        super().__init__(options, processes)
        self.probe_lm = ProbeLM(options.vision.hidden_size, options.text.vocab_size, options.probe_lm)
        self.batches = PictureBatches(options.pictures, need="questions")
        self.text = PictureText(options.text, self.batches)

    def questions(self, pictures: list[Picture], rng: random.Random) -> list[list[tuple[str, str]]]:
        """Questions and answers for each picture."""
        return [choose_questions(p, self.options.questions, self.options.captions, rng) for p in pictures]

    def answer(self, vectors: Tensor, images: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Logits and targets of the answers read from unit vectors [B, N, C] (continuous ones, or codes)."""
        convolution = self.vq.post_quant_conv
        features = F.linear(even_length(vectors).to(convolution.weight.dtype), convolution.weight[:, :, 0, 0], convolution.bias)
        patch = self.options.vision.patch_size
        return self.probe_lm(features, (images.shape[2] // patch, images.shape[3] // patch), pairs)

    def batch(self, step: int, micro_batch: int, generators: Generators) -> Asked:
        images, pictures = self.batches.draw(generators.python)
        if self.options.pictures.noisy:
            images = degrade(images, generators)
        return Asked(step, micro_batch, images, pack_pairs(self.questions(pictures, generators.python), self.text))

    def loss(self, batch: Asked) -> Loss:
        """Cross-entropy of the answer tokens, summed; the weight is their number."""
        step, micro_batch, images, pairs = batch
        z = self.vectors(images)
        if step < self.options.features_first:
            self.codebook.observe(step, micro_batch, z.flatten(0, 1))
            return self._reading_loss(z, images, pairs, torch.zeros(len(z), dtype=torch.bool, device=z.device))
        q, fit = self.quantize(z, step, micro_batch)
        from_codes = torch.arange(len(z), device=z.device) % 2 == 0
        read = torch.where(from_codes[:, None, None], q, z)
        answers = self._reading_loss(read, images, pairs, from_codes)
        commit = (z - q.detach()).square().sum(-1).mean()
        metrics = {**answers.metrics, "commit": (commit.item(), 1.0), "cosine": (fit.item(), 1.0)}
        return Loss(answers.total + self.options.commit * commit * answers.weight, answers.weight, metrics)

    def _reading_loss(self, vectors: Tensor, images: Tensor, pairs: Pairs, from_codes: Tensor) -> Loss:
        """from_codes bool [B]: which rows of `vectors` are codes; only for the metrics."""
        logits, targets = self.answer(vectors, images, pairs)
        total = F.cross_entropy(logits.float(), targets, reduction="sum")
        metrics = {"images": (float(len(images)), 0.0)}
        rights = right_pairs(logits.detach(), pairs)
        for name, wanted in (("right_codes", True), ("right_features", False)):
            chosen = [r for right, is_code in zip(rights, from_codes.tolist(), strict=True) if is_code == wanted for r in right]
            if chosen:
                metrics[name] = (float(sum(chosen)), float(len(chosen)))
        return Loss(total, float(len(targets)), metrics)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """The loss of reading codes, right answers on held-out pictures from codes and from continuous vectors, and the use of
        the codebook there."""
        rng = random.Random(EVALUATION_SEED)
        sums: dict[str, list[float]] = defaultdict(list)
        counts = torch.zeros(self.options.book.num_embeddings)
        size = self.options.pictures.count
        for _ in range(max(1, self.options.evaluate_pictures // size)):
            images, pictures = self.batches.draw(rng, split="heldout")
            images = images.to(self.processes.torch_device)
            pairs = pack_pairs(self.questions(pictures, rng), self.text).to(images.device)
            for name, (logits, targets) in self._read(images, pairs).items():
                sums[f"heldout_right_{name}"] += [float(r) for right in right_pairs(logits, pairs) for r in right]
                if name == "codes":
                    sums["loss"] += F.cross_entropy(logits.float(), targets, reduction="none").tolist()
            counts += torch.bincount(self.codes(images).flatten().cpu(), minlength=len(counts))
        metrics = {name: sum(values) / len(values) for name, values in sums.items()}
        return metrics | {"heldout_codes_used": (counts > 0).float().mean().item()}

    @torch.no_grad()
    def _read(self, images: Tensor, pairs: Pairs) -> dict[str, tuple[Tensor, Tensor]]:
        """Logits and targets of the answers, read from "codes" and from "features" (continuous)."""
        z = self.vectors(images)
        q = self.book[nearest_codes(self.book, z)]
        return {name: self.answer(vectors, images, pairs) for name, vectors in (("codes", q), ("features", z))}

    @torch.no_grad()
    def answered(self, images: Tensor, questions: list[list[tuple[str, str]]]) -> dict[str, list[list[bool]]]:
        """For each picture and question whether the answer is exactly right: "codes" and "features" (continuous)."""
        pairs = pack_pairs(questions, self.text).to(images.device)
        return {name: right_pairs(logits, pairs) for name, (logits, _) in self._read(images, pairs).items()}

    def left_out(self) -> list[str]:
        return self.batches.bad.found

    def shard_units(self) -> list[nn.Module]:
        return [*self.vision.blocks, *self.probe_lm.language_model.get_decoder().layers]

    def fingerprint(self) -> dict[str, Any]:
        return {
            "vision": asdict(self.options.vision),
            "book": asdict(self.options.book),
            "probe_lm": self.probe_lm.language_model.config.to_diff_dict(),
            "text": self.text.fingerprint(),
        }

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """image_tokenizer/ of the model directory; the language model stays in the run's checkpoints."""
        settings = preprocessing(self.options.vision, self.options.pictures.side)
        save_image_tokenizer(IMAGE_TOKENIZER.path(folder), state, settings, self.options.vision, self.options.book)
