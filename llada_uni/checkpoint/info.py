"""What is in a model directory: parts, parameters, memory. Reads configs and the headers of weight files, no
weights.

A directory -> one `PartInfo` a part -> totals and the memory the weights take in each
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
from llada_uni.checkpoint.notes import check_tokenizer_file, model_notes
from llada_uni.checkpoint.quantize import stored_bytes
from llada_uni.checkpoint.source import Source
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.model_dir import (
    BACKBONE,
    CODE_FEATURES,
    DECODER,
    DRAFTS,
    IMAGE_TOKENIZER,
    RECORDED_BACKBONE,
    TEXT,
    TURBO,
    VAE,
    Part,
)
from llada_uni.files.weights import WeightFiles, read_json, read_torch

BYTES = {"float32": 4, "bfloat16": 2}


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
class BrokenPart:
    """A part whose files are there and cannot be read, and why, in one line."""

    name: str
    reason: str


@dataclass(frozen=True)
class ModelInfo:
    """All parts of a directory. missing: parts that a complete model has and this one lacks; broken: parts that cannot be
    read; notes: what is unusual about it and does no harm (checkpoint/notes.py).
    """

    folder: str
    parts: tuple[PartInfo, ...]
    missing: tuple[str, ...]
    broken: tuple[BrokenPart, ...] = ()
    notes: tuple[str, ...] = ()

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
            "broken": [asdict(part) for part in self.broken],
            "notes": list(self.notes),
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


NETWORKS = (BACKBONE, IMAGE_TOKENIZER, DECODER, TURBO, VAE, CODE_FEATURES, DRAFTS)  # the parts with weights, as they are listed


def model_info(folder: str | os.PathLike[str]) -> ModelInfo:
    """Everything that `llada-uni info` prints; a part that cannot be read is reported beside the others.

    UserError when the directory is missing or holds no part.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no model directory {folder}")
    parts: list[PartInfo] = []
    missing: list[str] = []
    broken: list[BrokenPart] = []
    for part in NETWORKS:
        try:
            found = _read_part(folder, part)
        except UserError as error:
            broken.append(BrokenPart(part.name, str(error)))
            continue
        if found is not None:
            parts.append(found)
        elif not part.optional:
            missing.append(part.name)
    if TEXT.there(folder):
        try:
            check_tokenizer_file(folder)
        except UserError as error:
            broken.append(BrokenPart(TEXT.name, str(error)))
    if not parts and not broken:
        raise UserError(f"{folder} holds no part of a model ({', '.join(part.name for part in NETWORKS)})")
    return ModelInfo(str(folder), tuple(parts), tuple(missing), tuple(broken), model_notes(folder))


def _read_part(model: Path, part: Part) -> PartInfo | None:
    """What one part holds; None where it is not there. UserError when it is broken."""
    if part is BACKBONE:
        return _backbone(model) if any((model / at / part.marker).is_file() for at in (RECORDED_BACKBONE, "")) else None
    if not part.there(model):
        return None
    if part is CODE_FEATURES:
        return _sigvq(part.path(model) / part.marker)
    read_json(part.path(model) / part.marker)
    return _part(part.name, WeightFiles(part.path(model), part.weights))


def _backbone(folder: Path) -> PartInfo:
    source = Source(folder)
    stored = _part(BACKBONE.name, source.weights)
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
    return PartInfo(CODE_FEATURES.name, len(state), total, total, stored, dict(dtypes), _memory(total))
