"""What is in a model directory: parts, parameters, memory. Reads configs and the headers of weight files, no
weights.

What flows through: a directory -> one `PartInfo` a part -> totals and the memory the weights take in each
dtype.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from llada_uni.checkpoint.files import WeightFiles, read_torch
from llada_uni.checkpoint.layout import layout_of, places
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError

BYTES = {"float32": 4, "bfloat16": 2, "float8": 1}
_WEIGHTS = {
    "image_tokenizer": "model.safetensors",
    "decoder": "model.safetensors",
    "decoder-turbo": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
_SIGVQ = "sigvq_embedding.pt"


@dataclass(frozen=True)
class PartInfo:
    """One part: its tensors as stored. `active`: parameters that one token uses (less only where experts
    are)."""

    name: str
    tensors: int
    parameters: int
    active: int
    bytes_stored: int
    dtypes: dict[str, int]
    layout: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """All parts of a directory; `missing` are the parts that a complete model has and this one lacks."""

    folder: str
    parts: tuple[PartInfo, ...]
    missing: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def memory(self) -> dict[str, int]:
        """Bytes that the weights of all parts take, by dtype (weights only: caches and activations come on
        top)."""
        return {name: self.parameters * size for name, size in BYTES.items()}

    def to_json(self) -> dict[str, Any]:
        parts = [{**asdict(part), "memory": _memory(part.parameters)} for part in self.parts]
        return {
            "folder": self.folder,
            "parts": parts,
            "missing": list(self.missing),
            "parameters": self.parameters,
            "memory": self.memory(),
        }


def _memory(parameters: int) -> dict[str, int]:
    return {name: parameters * size for name, size in BYTES.items()}


def model_info(folder: str | os.PathLike[str]) -> ModelInfo:
    """Everything that `llada-uni info` prints. UserError when the directory is missing, empty of parts or
    damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no model directory {folder}")
    parts: list[PartInfo] = []
    missing: list[str] = []
    backbone = next((p for p in (folder / "backbone", folder) if (p / "config.json").is_file()), None)
    if backbone is None:
        missing.append("backbone")
    else:
        parts.append(_backbone(backbone))
    for name, weights in _WEIGHTS.items():
        if (folder / name / "config.json").is_file():
            parts.append(_part(name, WeightFiles(folder / name, weights)))
        else:
            missing.append(name)
    if (folder / "image_tokenizer" / _SIGVQ).is_file():
        parts.append(_sigvq(folder / "image_tokenizer" / _SIGVQ))
    else:
        missing.append("code features")
    if not parts:
        raise UserError(f"{folder} holds no part of a model (backbone, {', '.join(_WEIGHTS)})")
    return ModelInfo(str(folder), tuple(parts), tuple(missing))


def _backbone(folder: Path) -> PartInfo:
    config = BackboneConfig.from_json(folder / "config.json")
    part = _part("backbone", WeightFiles(folder))
    return PartInfo(
        **{**asdict(part), "active": active_parameters(config), "layout": layout_of(WeightFiles(folder))}
    )


def backbone_parameters(config: BackboneConfig) -> int:
    """All parameters of a backbone, from its config alone."""
    return sum(prod(place.shape) for place in places(config))


def active_parameters(config: BackboneConfig) -> int:
    """Parameters one token uses: all but the experts it is not sent to (both vocabulary tables counted
    whole)."""
    used = 0
    for place in places(config):
        size = prod(place.shape)
        used += size // config.num_experts * config.num_experts_per_tok if place.stacked else size
    return used


def _part(name: str, weights: WeightFiles) -> PartInfo:
    sizes = {tensor: prod(weights.shapes[tensor]) for tensor in weights}
    dtypes = Counter[str]()
    for tensor, size in sizes.items():
        dtypes[str(weights.dtypes[tensor]).removeprefix("torch.")] += size
    stored = sum(size * weights.dtypes[tensor].itemsize for tensor, size in sizes.items())
    total = sum(sizes.values())
    return PartInfo(name, len(sizes), total, total, stored, dict(dtypes))


def _sigvq(path: Path) -> PartInfo:
    state = read_torch(path)  # a torch file has no header to read alone; it is the smallest part
    dtypes = Counter[str]()
    for tensor in state.values():
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    total = sum(dtypes.values())
    stored = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    return PartInfo("code features", len(state), total, total, stored, dict(dtypes))
