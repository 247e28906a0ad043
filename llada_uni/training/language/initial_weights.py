"""Where a backbone's first weights come from: nowhere (drawn), a model directory, or a text-only checkpoint that is extended.

Tensors of the released or the stacked layout, one at a time -> rows of the vocabulary added where the file
has fewer -> the part that this process holds (all of it, or its rows of a sharded weight) -> the model, in place.
A vocabulary is extended at its end: rows of the language keep every bit, new ones (image specials and codes) are drawn with the
width `initializer_range`, in the embedding and in the head (arXiv:2604.20796, training).

V vocabulary, D width, E experts.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from llada_uni.backbone import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.model_dir import backbone_folder
from llada_uni.files.weights import read_json
from llada_uni.training.loop.ema import local_part
from llada_uni.training.loop.sharded_load import load_sharded_backbone, own_rows, plain_tensors

VOCABULARY = ("model.word_embeddings.weight", "lm_head.weight")


def read_config(folder: str | os.PathLike[str], vocab_size: int, image_token_offset: int) -> BackboneConfig:
    """The config of a model directory or text-only checkpoint, with the vocabulary that training is to have.

    A text-only checkpoint has no image_token_offset. UserError when the directory has more tokens, or its codes elsewhere.
    """
    content = read_json(backbone_folder(Path(folder)) / "config.json")
    wanted = {"vocab_size": vocab_size, "image_token_offset": image_token_offset}
    if content.get("image_token_offset", image_token_offset) != image_token_offset:
        raise UserError(f"{folder}: image codes start at {content['image_token_offset']}; the data has {image_token_offset}")
    if content.get("vocab_size", 0) > vocab_size:
        raise UserError(f"{folder}: has {content['vocab_size']} tokens; the data has only {vocab_size}")
    return BackboneConfig.from_json({**content, **wanted})


@torch.no_grad()
def fill_backbone(model: Backbone, init: str | os.PathLike[str] | None, seed: int = 0) -> None:
    """Gives every weight its first value, in place; of sharded weights each process reads and keeps only its own rows.

    init: a model directory, or a text-only checkpoint, whose vocabulary is extended; None: all drawn, for seed 0 the values of
    `Backbone(config)`. UserError for a checkpoint of other sizes, or with more tokens.
    """
    if init is None:
        buffers = dict(model.named_buffers())
        _draw(model, [name for name in plain_tensors(model) if name not in buffers], seed)
        for router in model.routers():
            router.expert_bias.zero_()
        model.reset_load()
        return
    rows = read_json(backbone_folder(Path(init)) / "config.json").get("vocab_size", 0)
    if rows > model.config.vocab_size:
        raise UserError(f"{init} has {rows} tokens; the network to be trained has only {model.config.vocab_size}")
    if rows < model.config.vocab_size:
        _draw(model, VOCABULARY, seed)  # of which the language's rows are now written over
    load_sharded_backbone(model, init, dataclasses.replace(model.config, vocab_size=rows))


def _draw(model: Backbone, names: Sequence[str], seed: int) -> None:
    """As Backbone.init_weights, one whole tensor at a time, of which each process keeps its rows."""
    generator, tensors = torch.Generator().manual_seed(seed), plain_tensors(model)
    for name in names:
        parameter = tensors[name]
        part = local_part(parameter)
        if parameter.dim() == 1:
            part.fill_(1.0)
        else:
            whole = torch.empty(parameter.shape).normal_(0.0, model.config.initializer_range, generator=generator)
            part.copy_(whole[slice(*own_rows(parameter))])
