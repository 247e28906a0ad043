"""Where a backbone's first weights come from: nowhere (drawn), a model directory, or a text-only checkpoint that is extended.

What flows through: tensors of the released or the stacked layout, one at a time -> rows of the vocabulary added where the file
has fewer -> the part that this process holds (all of it, or its rows of a sharded weight) -> the model, in place.
A vocabulary is extended at its end: rows of the language keep every bit, new ones (image specials and codes) are drawn with the
width `initializer_range`, in the embedding and in the head (arXiv:2604.20796, training).

V vocabulary, D width, E experts.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.files import WeightFiles, check_names, check_shape, read_json
from llada_uni.checkpoint.layout import Place, layout_of, places, released_shapes, stacked_shapes
from llada_uni.checkpoint.load import backbone_folder
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError

VOCABULARY = ("model.word_embeddings.weight", "lm_head.weight")


def extend_rows(weight: Tensor, rows: int, std: float, generator: torch.Generator) -> Tensor:
    """weight [V, D] -> [rows, D]: the old rows bit for bit, then new ones, normal of width `std`."""
    if rows < len(weight):
        raise UserError(f"the vocabulary has {len(weight)} rows, more than the {rows} wanted; allowed: at least as many")
    new = torch.empty(rows - len(weight), weight.shape[1]).normal_(0.0, std, generator=generator)
    return torch.cat((weight, new.to(weight.dtype)))


def read_config(folder: str | os.PathLike[str], vocab_size: int, image_token_offset: int) -> BackboneConfig:
    """The config of a model directory or text-only checkpoint, with the vocabulary that training is to have.

    A text-only checkpoint has no image_token_offset. UserError when the directory has more tokens, or its codes elsewhere.
    """
    content = read_json(backbone_folder(folder) / "config.json")
    wanted = {"vocab_size": vocab_size, "image_token_offset": image_token_offset}
    if content.get("image_token_offset", image_token_offset) != image_token_offset:
        raise UserError(f"{folder}: image codes start at {content['image_token_offset']}; the data has {image_token_offset}")
    if content.get("vocab_size", 0) > vocab_size:
        raise UserError(f"{folder}: has {content['vocab_size']} tokens; the data has only {vocab_size}")
    return BackboneConfig.from_json({**content, **wanted})


def fill_backbone(model: Backbone, init: str | os.PathLike[str] | None, seed: int = 0) -> None:
    """Gives every weight its first value, in place; weights may be sharded, then each process reads only its own experts.

    init: a model directory or a text-only checkpoint (fewer tokens); None: drawn, the values of `Backbone(config)` for seed 0.
    UserError for a checkpoint of other sizes.
    """
    if init is None:
        _draw(model, torch.Generator().manual_seed(seed))
    else:
        source = _Source(Path(init), model.config, seed)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for place in places(model.config):
            local, rows = _own(tensors[place.name])
            local.copy_(source.rows(place, rows))
    model.reset_load()


@torch.no_grad()
def _draw(model: Backbone, generator: torch.Generator) -> None:
    """As Backbone.init_weights, one whole tensor at a time, of which each process keeps its rows."""
    for parameter in model.parameters():
        local, rows = _own(parameter)
        if parameter.dim() == 1:
            local.fill_(1.0)
        else:
            whole = torch.empty(parameter.shape).normal_(0.0, model.config.initializer_range, generator=generator)
            local.copy_(whole[rows])
    for router in model.routers():
        router.expert_bias.zero_()


def _own(tensor: Tensor) -> tuple[Tensor, slice]:
    """The part of a tensor that this process holds, and which rows of the whole they are."""
    if not isinstance(tensor, DTensor):
        return tensor.detach(), slice(0, len(tensor))
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.detach().to_local(), slice(offset[0], offset[0] + shape[0])


class _Source:
    """The tensors of a checkpoint, checked against the config `wanted`, whose vocabulary may be larger."""

    def __init__(self, folder: Path, wanted: BackboneConfig, seed: int) -> None:
        folder = backbone_folder(folder)
        self.weights, self.wanted, self.seed = WeightFiles(folder), wanted, seed
        size = int(read_json(folder / "config.json").get("vocab_size", 0))
        found = dataclasses.replace(wanted, vocab_size=size)
        self.released = layout_of(self.weights) == "released"
        expected = released_shapes(found) if self.released else stacked_shapes(found)
        check_names(self.weights.path, set(expected), set(self.weights))
        for name, shape in expected.items():
            check_shape(self.weights.path, name, shape, self.weights.shapes[name])

    def rows(self, place: Place, rows: slice) -> Tensor:
        """Rows of a tensor of our layout; of experts that are stored one by one, only those are read."""
        if place.stacked and self.released:
            names = place.released[rows]
            return torch.stack([self.weights.tensor(name) for name in names]) if names else torch.empty(0, *place.shape[1:])
        value = self.weights.tensor(place.released[0] if self.released else place.name)
        if place.name in VOCABULARY:
            generator = torch.Generator().manual_seed(self.seed + zlib.crc32(place.name.encode()))
            value = extend_rows(value, self.wanted.vocab_size, self.wanted.initializer_range, generator)
        return value[rows]
