"""Several backbones of the same sizes read as one: each weight is the mean of theirs, or lies on the way there.

Directories of runs that went on from the same weights -> every tensor by its place, averaged in float32, one at a
time, so memory is that of a few tensors ("Model soups", arXiv:2203.05482). Part of the way from the weights they began at
keeps more of what these could ("WiSE-FT", arXiv:2109.01903).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import torch

from llada_uni.checkpoint.layout import Place, places
from llada_uni.checkpoint.source import Source
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE


@dataclass(frozen=True)
class Way:
    """How far to go from the backbone in `start` to the mean: `fraction` of the way (1: all of it), and not at all for weights
    whose name, in the layout with stacked experts, fits one of `kept` (`*`: anything)."""

    start: str | os.PathLike[str]
    fraction: float = 1.0
    kept: Sequence[str] = ()


class Mean:
    """The mean of the backbones in `folders`, at least one, or where `way` ends. Folder, config, dtypes and scheme are those
    of the first.

    UserError for what `Source` refuses, a folder whose config.json describes another network, a fraction that is not above 0
    and at most 1, and a name to be kept that no weight has.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]], way: Way | None = None) -> None:
        self._sources = [Source(folder) for folder in folders]
        first = self._sources[0]
        self.folder, self.config, self.scheme, self.dtype = first.folder, first.config, first.scheme, first.dtype
        self._start = None if way is None else Source(way.start)
        self._fraction, patterns = (1.0, ()) if way is None else (way.fraction, tuple(way.kept))
        if not 0 < self._fraction <= 1:
            raise UserError(f"the fraction of the way to the mean is {self._fraction}; allowed: above 0 and at most 1")
        names = [place.name for place in places(self.config)]
        self._kept: set[str] = set()
        for pattern in patterns:
            found = [name for name in names if fnmatch(name, pattern)]
            if not found:
                raise UserError(f"no weight is called {pattern!r} and so none is kept; names are like {names[0]}, {names[-1]}")
            self._kept.update(found)
        for other in [*self._sources[1:], *([self._start] if self._start else [])]:
            if replace(other.config, extra={}) != replace(self.config, extra={}):
                raise UserError(
                    f"{other.folder} and {self.folder} cannot be averaged: their {BACKBONE.marker} describe different networks"
                )

    def expert(self, place: Place, expert: int) -> torch.Tensor:
        """One expert's weights float32 [R, C]."""
        return self._mean(place, lambda source: source.expert(place, expert))

    def whole(self, place: Place, device: str | torch.device, dtype: torch.dtype) -> torch.Tensor:
        """All of a place in `dtype`."""
        return self._mean(place, lambda source: source.whole(place, device, torch.float32)).to(dtype)

    def _mean(self, place: Place, read: Callable[[Source], torch.Tensor]) -> torch.Tensor:
        start = None if self._start is None else read(self._start).to(torch.float32)
        if start is not None and place.name in self._kept:
            return start
        total = read(self._sources[0]).to(torch.float32, copy=True)
        for source in self._sources[1:]:
            total += read(source)
        total /= len(self._sources)
        return total if start is None else start.lerp(total, self._fraction)
