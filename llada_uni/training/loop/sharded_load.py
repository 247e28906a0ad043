"""Reading a backbone into sharded weights: each process reads its own part of the files and nothing else.

A backbone is built on the meta device and sharded (parallel.py); then its parts have memory but no values. Every tensor is cut
along its first axis, so a process's part is a range of rows: rows of a matrix, or whole experts, which in the released layout
are tensors of their own. No process ever holds more than its part and one tensor's worth of rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.layout import Place, places
from llada_uni.checkpoint.load import open_weights
from llada_uni.config import BackboneConfig
from llada_uni.files.model_dir import backbone_folder
from llada_uni.files.weights import WeightFiles
from llada_uni.training.loop.ema import local_part

_ADAPTER = re.compile(r"\.(lora_[^.]+|modules_to_save)\.")
_WRAPPED = re.compile(r"\.(base_layer|original_module)(?=\.)")  # what peft puts around a module


@torch.no_grad()
def load_sharded_backbone(model: Backbone, folder: str | os.PathLike[str], config: BackboneConfig | None = None) -> int:
    """Fills `model`, sharded or whole, with adapters or without, from a model directory in either layout; returns the bytes
    this process read.

    Values are converted to the dtype the weights have. config: of the directory, where its vocabulary is smaller: the rows
    that it lacks are left as they are. UserError as for `load_backbone`.
    """
    config = config or model.config
    weights, layout = open_weights(backbone_folder(Path(folder)), config)
    tensors = plain_tensors(model)
    count = 0
    for place in places(config):
        target = tensors[place.name]
        start, stop = (min(row, place.shape[0]) for row in own_rows(target))
        part = local_part(target)
        for offset, rows in _pieces(weights, place, start, stop, one_by_one=layout == "released" and place.stacked):
            part[offset : offset + len(rows)].copy_(rows)
            count += rows.nbytes
    model.reset_load()  # the only tensors that no file carries are the routers' counters
    return count


def plain_tensors(model: Backbone) -> dict[str, Tensor]:
    """Parameters and buffers by the names that they have without adapters (training/language/lora.py), which are left out."""
    found: dict[str, Tensor] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not _ADAPTER.search(name):
            found[_WRAPPED.sub("", name)] = tensor
    return found


def _pieces(weights: WeightFiles, place: Place, start: int, stop: int, one_by_one: bool) -> Iterator[tuple[int, Tensor]]:
    """(row of the part, rows) for the rows start..stop of a tensor; `one_by_one`: each row is a tensor of its own."""
    if one_by_one:
        for row in range(start, stop):
            yield row - start, weights.tensor(place.released[row])[None]
    elif stop > start:
        yield 0, weights.rows(place.name, start, stop)


def own_rows(tensor: Tensor) -> tuple[int, int]:
    """The range of rows (first axis) of a tensor that this process holds; all of them when it is not sharded."""
    if not isinstance(tensor, DTensor):
        return 0, tensor.shape[0]
    axis = next(axis for axis, placement in enumerate(tensor.placements) if isinstance(placement, Shard))
    mesh, rows = tensor.device_mesh, tensor.shape[0]
    start = min(rows, mesh.get_local_rank(axis) * -(-rows // mesh.size(axis)))  # equal parts, the last ones smaller
    return start, start + tensor.to_local().shape[0]
