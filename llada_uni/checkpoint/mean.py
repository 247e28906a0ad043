"""Several backbones of the same sizes read as one: each weight is the mean of theirs.

Directories of runs that went on from the same weights -> every tensor by its place, averaged in float32, one at a
time, so memory is that of a few tensors ("Model soups", arXiv:2203.05482).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from llada_uni.checkpoint.layout import Place
from llada_uni.checkpoint.source import Source
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE


class Mean:
    """The mean of the backbones in `folders`, at least one. Folder, config, dtypes and scheme are those of the first.

    UserError for what `Source` refuses, and for a folder whose config.json describes another network.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        self._sources = [Source(folder) for folder in folders]
        first = self._sources[0]
        self.folder, self.config, self.scheme, self.dtype = first.folder, first.config, first.scheme, first.dtype
        for other in self._sources[1:]:
            if replace(other.config, extra={}) != replace(self.config, extra={}):
                raise UserError(
                    f"{other.folder} and {self.folder} cannot be averaged: their {BACKBONE.marker} describe different networks"
                )

    def expert(self, place: Place, expert: int) -> torch.Tensor:
        """One expert's weights float32 [R, C]."""
        return self._mean(lambda source: source.expert(place, expert))

    def whole(self, place: Place, device: str | torch.device, dtype: torch.dtype) -> torch.Tensor:
        """All of a place in `dtype`."""
        return self._mean(lambda source: source.whole(place, device, torch.float32)).to(dtype)

    def _mean(self, read: Callable[[Source], torch.Tensor]) -> torch.Tensor:
        total = read(self._sources[0]).to(torch.float32, copy=True)
        for source in self._sources[1:]:
            total += read(source)
        return total / len(self._sources)
