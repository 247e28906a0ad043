"""The small language model through which the quantizer is trained: it reads a picture's vectors and answers questions.

Vectors of the positions [B, N, C] -> post_quant_conv and projection -> N positions of prefix; questions and
answers of the picture behind it, all in one row. A pair of question and answer sees the prefix and itself, never another
pair, so several questions share one picture and no answer gives another away.
Axes: B pictures, N positions of a picture, C width of the codebook, E width of the language model, T tokens of all pairs of a
picture (padded), V ids, A answer tokens of the whole batch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from llada_uni.data.pictures import Picture
from llada_uni.options import options
from llada_uni.training.tokenizer.picture_text import PictureText

CAPTION_QUESTION = "describe the picture"
IGNORED = -100
"""Target of positions that are not answered (PyTorch's word for it)."""
_WORD_SIZE = 0.5
"""Root mean square of a fresh word's entries, and of a position's."""


class Pairs(NamedTuple):
    """ids int64 [B, T]; targets int64 [B, T]: the answer token that follows, or IGNORED; pair int64 [B, T]: number of the
    pair, -1 for padding; position int64 [B, T]: position inside the pair."""

    ids: Tensor
    targets: Tensor
    pair: Tensor
    position: Tensor

    def to(self, device: torch.device) -> Pairs:
        return Pairs(*(tensor.to(device) for tensor in self))


def choose_questions(picture: Picture, count: int, caption_share: float, rng: random.Random) -> list[tuple[str, str]]:
    """At most `count` of the picture's questions, at random; with probability `caption_share` also its caption is asked."""
    questions = list(picture.questions)
    if len(questions) > count:
        questions = rng.sample(questions, count)
    if picture.caption and rng.random() < caption_share:
        questions.append((CAPTION_QUESTION, picture.caption))
    return questions


def pack_pairs(questions: Sequence[Sequence[tuple[str, str]]], text: PictureText) -> Pairs:
    """The questions and answers of each picture, one behind another in its row."""
    rows = []
    for pairs in questions:
        row: list[tuple[int, int, int, int]] = []
        for number, (question, answer) in enumerate(pairs):
            asked, answered = text.text(question), text.answer(answer)
            ids = [*asked, *answered]
            targets = [IGNORED] * (len(asked) - 1) + answered + [IGNORED]
            row += zip(ids, targets, [number] * len(ids), range(len(ids)), strict=True)
        rows.append(row)
    longest = max(len(row) for row in rows)
    padding = (0, IGNORED, -1, 0)
    return Pairs(*torch.tensor([row + [padding] * (longest - len(row)) for row in rows]).unbind(-1))


def pair_attention(pairs: Pairs, prefix: int) -> Tensor:
    """bool [B, 1, N + T, N + T], True where a position may look: the prefix (N = `prefix` positions) at the prefix, a token at
    the prefix and at what stands before it in its own pair."""
    b, t = pairs.pair.shape
    same = pairs.pair[:, :, None] == pairs.pair[:, None, :]
    allowed = pairs.ids.new_zeros(b, prefix + t, prefix + t, dtype=torch.bool)
    allowed[:, :, :prefix] = True
    allowed[:, :prefix, prefix:] = False
    allowed[:, prefix:, prefix:] = same & torch.ones(t, t, dtype=torch.bool, device=same.device).tril()
    return allowed[:, None]


@options
class ProbeLMOptions:
    """init: folder of a pretrained causal language model of transformers, or "" for a fresh one of the sizes in `model`.

    model: model_type and fields of transformers' config. max_side: longest side of a grid of codes.
    """

    init: str = ""
    model: dict[str, Any] = field(
        default_factory=lambda: {
            "model_type": "llama",
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "initializer_range": 0.05,  # wider than the usual 0.02, at which attention starts almost flat
        }
    )
    max_side: int = 64


class ProbeLM(nn.Module):
    """A causal language model of transformers with a projection of picture vectors before it."""

    def __init__(self, channels: int, vocab_size: int, options: ProbeLMOptions) -> None:
        super().__init__()
        if options.init:
            self.language_model = AutoModelForCausalLM.from_pretrained(options.init)
        else:
            config = AutoConfig.for_model(**options.model, vocab_size=vocab_size, use_cache=False)
            self.language_model = AutoModelForCausalLM.from_config(config)
            # Words must stand out against what the layers add, or a small model learns nothing for a long time.
            embeddings = self.language_model.get_input_embeddings().weight
            assert isinstance(embeddings, Tensor)  # the parameter of an embedding layer
            nn.init.normal_(embeddings, std=_WORD_SIZE)
        width = self.language_model.config.hidden_size
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width, bias=False)
        # Where a position is must be readable from the first step on: rotary positions alone bind late.
        self.row, self.column = (nn.Embedding(options.max_side, width) for _ in range(2))
        nn.init.normal_(self.project.weight, std=_WORD_SIZE / math.sqrt(channels))
        for table in (self.row, self.column):
            nn.init.normal_(table.weight, std=_WORD_SIZE / 2)

    def forward(self, features: Tensor, grid: tuple[int, int], pairs: Pairs) -> tuple[Tensor, Tensor]:
        """features [B, N, channels] of a grid of (rows, columns) -> logits [A, V] and targets [A] of all answer tokens."""
        rows, columns = grid
        where = self.row.weight[:rows, None] + self.column.weight[None, :columns]  # [rows, columns, E]
        prefix = self.project(self.norm(features)) + where.flatten(0, 1)
        words = self.language_model.get_input_embeddings()(pairs.ids)
        count = prefix.shape[1]
        positions = torch.arange(count, device=prefix.device).expand(len(prefix), -1)
        hidden = self.language_model.get_decoder()(
            inputs_embeds=torch.cat([prefix, words.to(prefix.dtype)], dim=1),
            attention_mask=pair_attention(pairs, count),
            position_ids=torch.cat([positions, count + pairs.position], dim=1),
            use_cache=False,
        ).last_hidden_state[:, count:]
        answered = pairs.targets != IGNORED
        return self.language_model.get_output_embeddings()(hidden[answered]), pairs.targets[answered]


def right_pairs(logits: Tensor, pairs: Pairs) -> list[list[bool]]:
    """For each picture and pair, whether every token of the answer is the most likely one.

    That is the same as: greedy decoding writes exactly this answer. logits [A, V] as `ProbeLM` gives them.
    """
    answered = pairs.targets != IGNORED
    right = torch.ones_like(pairs.targets, dtype=torch.bool)
    right[answered] = logits.argmax(-1) == pairs.targets[answered]
    out = []
    for row, numbers in zip(right, pairs.pair, strict=True):
        count = int(numbers.max()) + 1
        out.append([bool(row[numbers == number].all()) for number in range(count)])
    return out


def even_length(vectors: Tensor) -> Tensor:
    """Unit vectors [..., C] scaled so that their entries have a mean square of 1, as networks like them."""
    return vectors * math.sqrt(vectors.shape[-1])
