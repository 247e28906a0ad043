"""What is in a model directory: parts, parameters, memory. Reads configs and the headers of weight files, no
weights.

What flows through: a directory -> one `PartInfo` a part -> totals and the memory the weights take in each
dtype.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from llada_uni.backbone.quantized_formats import FORMATS, make_scheme
from llada_uni.checkpoint.layout import places
from llada_uni.checkpoint.quantize import stored_bytes
from llada_uni.checkpoint.source import Source
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.weights import WeightFiles, read_torch

BYTES = {"float32": 4, "bfloat16": 2}
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
    are). `memory`: bytes its weights would take, by dtype, or by the format of its experts with the rest in
    bfloat16. `quantization`: the format the experts are stored in, if they are.
    """

    name: str
    tensors: int
    parameters: int
    active: int
    bytes_stored: int
    dtypes: dict[str, int]
    memory: dict[str, int]
    layout: str | None = None
    quantization: str | None = None


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
        """Bytes that the weights of all parts take, by dtype or format of the experts (weights only: caches and
        activations come on top)."""
        return {kind: sum(part.memory[kind] for part in self.parts) for kind in (*BYTES, *FORMATS)}

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "parts": [asdict(part) for part in self.parts],
            "missing": list(self.missing),
            "parameters": self.parameters,
            "memory": self.memory(),
        }


def _memory(parameters: int) -> dict[str, int]:
    """Of a part without experts: no format changes it."""
    plain = {name: parameters * size for name, size in BYTES.items()}
    return plain | dict.fromkeys(FORMATS, plain["bfloat16"])


def backbone_memory(config: BackboneConfig) -> dict[str, int]:
    """Bytes of a backbone's weights in each dtype, and in bfloat16 with the experts in each format."""
    memory = _memory(backbone_parameters(config))
    for format in FORMATS:
        with suppress(UserError):  # experts too narrow for int4 stay as they are
            memory[format] = stored_bytes(config, make_scheme(format))
    return memory


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
    source = Source(folder)
    stored = _part("backbone", source.weights)
    scheme = source.scheme
    return replace(
        stored,
        parameters=backbone_parameters(source.config),
        active=active_parameters(source.config),
        memory=backbone_memory(source.config),
        layout=source.layout if scheme is None else f"{source.layout}, {scheme.format}",
        quantization=None if scheme is None else scheme.format,
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
    return PartInfo(name, len(sizes), total, total, stored, dict(dtypes), _memory(total))


def _sigvq(path: Path) -> PartInfo:
    state = read_torch(path)  # a torch file has no header to read alone; it is the smallest part
    dtypes = Counter[str]()
    for tensor in state.values():
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    total = sum(dtypes.values())
    stored = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    return PartInfo("code features", len(state), total, total, stored, dict(dtypes), _memory(total))
