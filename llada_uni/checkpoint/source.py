"""One backbone on disk, whichever way its experts are stored: every tensor of the network, by its place.

Config.json and the headers of the weight files -> names and shapes checked against the
table of layout.py -> tensors, one at a time. Experts may be plain (released or stacked layout), float8 as
others store it (fp8.py), or quantized by us; whoever reads them here need not know which.
Axes: E experts, R rows, C columns of one matrix.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from llada_uni.backbone.quantized_formats import Quantized, Scheme, dequantize
from llada_uni.checkpoint import fp8
from llada_uni.checkpoint.layout import Place, layout_of, places, quantized_shapes, released_shapes, stacked_shapes
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE, backbone_folder
from llada_uni.files.weights import WeightFiles, check_names, check_shape


def own_scheme(config: BackboneConfig) -> Scheme | None:
    """How `llada-uni quantize` stored the experts, from the config; None for any other directory."""
    entry = config.extra.get("quantization_config") or {}
    return Scheme.from_json(entry) if entry.get("quant_method") == "llada_uni" else None


def config_json(config: BackboneConfig, scheme: Scheme | None) -> dict[str, Any]:
    """config.json of a backbone whose experts are stored by `scheme` (None: plain)."""
    content = {name: value for name, value in config.to_json().items() if name not in fp8.CONFIG_FIELDS}
    return content if scheme is None else {**content, "quantization_config": scheme.to_json()}


class Source:
    """The backbone in a directory, opened and checked.

    `layout`: of its names; `scheme`: how the experts are quantized, None when they are plain; `ours`: whether
    they are stored as `llada-uni quantize` does, in the tensors that `Source.packed` gives.
    UserError for a missing or unknown tensor, a wrong shape, a damaged file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = backbone_folder(Path(folder))
        self.config = BackboneConfig.from_json(self.folder / BACKBONE.marker)
        self.weights = WeightFiles(self.folder)
        self.layout = layout_of(self.weights)
        self._scales = fp8.scale_names(self.weights)
        self.scheme = own_scheme(self.config)
        self.ours = self.scheme is not None
        self._check()
        if not self.ours:
            self.scheme = self._foreign_scheme()

    def _check(self) -> None:
        if self.ours:
            assert self.scheme is not None  # what `ours` says
            expected = quantized_shapes(self.config, self.scheme)
        else:
            expected = (released_shapes if self.layout == "released" else stacked_shapes)(self.config)
        passed_over = {*self._scales.values(), *(name for name in self.weights if fp8.is_activation_scale(name))}
        check_names(self.weights.path, set(expected), set(self.weights) - passed_over)
        try:
            for name, shape in expected.items():
                check_shape(self.weights.path, name, shape, self.weights.shapes[name])
        except UserError as error:
            raise UserError(f"{error}; {BACKBONE.marker} and all weights must be of one revision") from None

    def _foreign_scheme(self) -> Scheme | None:
        """That of the float8 experts of a released directory. UserError when only some are float8."""
        names = [name for place in places(self.config) if place.stacked for name in place.released]
        quantized = [name for name in names if name in self._scales]
        if not quantized:
            return None
        if len(quantized) < len(names):
            raise UserError(f"{self.weights.path}: only {len(quantized)} of {len(names)} expert tensors are float8")
        found = {fp8.block_scheme(self.weights, name, self._scales[name], self.config.extra) for name in names}
        if len(found) > 1:
            raise UserError(f"{self.weights.path}: the scales of the experts are of several kinds")
        return found.pop()

    def files_of(self, place: Place) -> set[Path]:
        """The weight files that hold a place's tensors, their scales included."""
        names = [place.name] if self.layout == "stacked" else list(place.released)
        if self.ours and place.stacked:
            names = [f"{place.name}.{part}" for part in Quantized._fields]
        names += [self._scales[name] for name in names if name in self._scales]
        return {self.weights.file_of(name) for name in names}

    def dtype(self, place: Place) -> torch.dtype:
        """What a place's weights are, or would be: those of the head where they are quantized."""
        name = place.name if self.layout == "stacked" else place.released[0]
        dtype = self.weights.dtypes.get(name, torch.float8_e4m3fn)
        return self.weights.dtypes["lm_head.weight"] if dtype == torch.float8_e4m3fn else dtype

    def expert(self, place: Place, expert: int) -> torch.Tensor:
        """One expert's weights [R, C]: in the file's dtype, or float32 where they were quantized."""
        if self.ours:
            assert self.scheme is not None  # what `ours` says
            parts = (self.weights.rows(f"{place.name}.{part}", expert, expert + 1) for part in Quantized._fields)
            return dequantize(Quantized(*parts), self.scheme, place.shape[1])[0]
        if self.layout == "stacked":
            return self.weights.rows(place.name, expert, expert + 1)[0]
        return self._dense(place.released[expert])

    def whole(self, place: Place, device: str | torch.device, dtype: torch.dtype) -> torch.Tensor:
        """All of a place in `dtype`; on the CPU a tensor of that dtype is mapped from its file, not copied."""
        if not place.stacked:
            return self._dense(place.released[0]).to(device=device, dtype=dtype)
        if self.layout == "stacked" and not self.ours:
            return self.weights.tensor(place.name).to(device=device, dtype=dtype)
        value = torch.empty(place.shape, dtype=dtype, device=device)
        for expert in range(place.shape[0]):
            value[expert].copy_(self.expert(place, expert))
        return value

    def packed(self, place: Place) -> Quantized:
        """The quantized tensors [E, ...] of a place, mapped; only where `ours`."""
        return Quantized(*(self.weights.tensor(f"{place.name}.{part}") for part in Quantized._fields))

    def packed_expert(self, place: Place, expert: int) -> Quantized:
        """One expert as a float8 directory of others stores it: values [R, C], scale [blocks, blocks]."""
        name = place.released[expert]
        return fp8.read(self.weights, name, self._scales[name])

    def _dense(self, name: str) -> torch.Tensor:
        if name in self._scales:
            return fp8.read_dense(self.weights, name, self._scales[name], self.config.extra)
        return self.weights.tensor(name)
