"""An adapter added to the weights of a model directory, tensor by tensor: also to quantized ones, which are rounded again.

A model directory and an adapter folder -> each expert taken back to float32, the adapter's product added,
rounded to the form it had -> weight files. Memory: the adapter, one place's experts and one shard.
R rows (features out), C columns (in) of a matrix.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llada_uni.backbone.quantized_formats import Scheme, dequantize, quantize
from llada_uni.checkpoint.layout import Place, places
from llada_uni.checkpoint.load import write_shards
from llada_uni.checkpoint.quantize import SHARD_BYTES, OnProgress, quantized_pieces
from llada_uni.checkpoint.source import Source, config_json
from llada_uni.errors import UserError
from llada_uni.files.weights import write_json
from llada_uni.training.language.lora import read_adapter
from llada_uni.training.language.quantized_lora import delta

_LOOKED_AT = 3  # experts of each place on which the error of rounding is measured


@dataclass(frozen=True)
class Rounding:
    """What rounding again does to the merged experts: norms of the error and of what the adapter adds, both relative to the
    merged weights."""

    scheme: Scheme
    error: float
    added: float

    def __str__(self) -> str:
        said = f"rounded to {self.scheme.format} again, the merged experts are {self.error:.2%} off; the adapter moves them by"
        said = f"{said} {self.added:.2%}"
        if self.added < self.error:
            said += " (less than that: much of it survives only as a sum over many weights; the adapter folder has all of it)"
        return said


class AdaptedSource(Source):
    """The backbone in a directory as it is with an adapter in it. UserError for an adapter of another network."""

    def __init__(self, folder: str | os.PathLike[str], adapter: str | os.PathLike[str]) -> None:
        super().__init__(folder)
        adapters, self._whole = read_adapter(self.config, adapter)
        self._adapters = {one.weight: one for one in adapters}

    def change(self, place: Place, expert: int) -> Tensor | None:
        """What the adapter adds to a matrix [R, C], float32; None where it adds nothing."""
        found = self._adapters.get(place.name)
        if found is None:
            return None
        rank = found.down.shape[0] // (place.shape[0] if place.stacked else 1)
        return found.scaling * delta(found.down, found.up, rank, expert)

    def expert(self, place: Place, expert: int) -> Tensor:
        found, change = super().expert(place, expert), self.change(place, expert)
        return found if change is None else found.float() + change

    def whole(self, place: Place, device: str | torch.device, dtype: torch.dtype) -> Tensor:
        if place.name in self._whole:
            return self._whole[place.name].to(device=device, dtype=dtype)
        if place.stacked:
            return super().whole(place, device, dtype)
        found, change = super().whole(place, device, dtype), self.change(place, 0)
        return found if change is None else (found.float() + change.to(device)).to(dtype)


def merge_quantized(
    source: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    folder: Path,
    scheme: Scheme | None = None,
    on_progress: OnProgress | None = None,
) -> Rounding:
    """Writes config.json and the weights of `source` with the adapter merged into `folder`, experts in `scheme` (None: as the
    source holds them). UserError when neither says how experts are quantized."""
    stored = AdaptedSource(source, adapter)
    scheme = scheme or stored.scheme
    if scheme is None:
        raise UserError(f"the experts of {source} are plain")
    write_shards(folder, quantized_pieces(stored, scheme, on_progress), SHARD_BYTES)
    write_json(folder / "config.json", config_json(stored.config, scheme))
    return _measured(stored, scheme)


def _measured(stored: AdaptedSource, scheme: Scheme) -> Rounding:
    error = added = total = 0.0
    for place in places(stored.config):
        if place.stacked:
            for expert in range(0, place.shape[0], -(-place.shape[0] // _LOOKED_AT)):
                wanted, change = stored.expert(place, expert).float(), stored.change(place, expert)
                found = dequantize(quantize(wanted, scheme), scheme, place.shape[1])
                error += float((found - wanted).square().sum())
                added += 0.0 if change is None else float(change.square().sum())
                total += float(wanted.square().sum())
            stored.weights.release()
    return Rounding(scheme, (error / max(total, 1e-30)) ** 0.5, (added / max(total, 1e-30)) ** 0.5)
