"""A model directory of random quantized weights, written piece by piece: what stands in for a large model in benchmarks.

configuration and scheme -> values drawn evenly, scales that give weights of the usual width -> a directory that
`load_backbone` reads. 8 GB for the 16 B backbone in int4, where plain weights to be quantized would take 32 GB more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch

from llada_uni.backbone.quantized_formats import Scheme
from llada_uni.checkpoint.layout import FLOAT32_SUFFIXES, Place, places
from llada_uni.checkpoint.load import Piece, write_shards
from llada_uni.checkpoint.source import config_json
from llada_uni.config import BackboneConfig
from llada_uni.files.weights import write_json


def write_random_quantized(folder: Path, config: BackboneConfig, scheme: Scheme) -> None:
    """A quantized directory: random values with scales that give weights of the usual width."""
    folder.mkdir(parents=True)
    write_shards(folder, _pieces(config, scheme), 10**9)
    write_json(folder / "config.json", config_json(config, scheme))


def _pieces(config: BackboneConfig, scheme: Scheme) -> Iterator[Piece]:
    for number, place in enumerate(places(config)):
        if not place.stacked:
            dtype = torch.float32 if place.name.endswith(FLOAT32_SUFFIXES) else torch.bfloat16
            plain = partial(_plain, place, number, dtype, config.initializer_range)
            yield place.name, prod(place.shape) * dtype.itemsize, plain
            continue
        for part, (shape, kind) in scheme.shapes(*place.shape).items():
            make = partial(_quantized, part, shape, kind, number, scheme, config.initializer_range)
            yield f"{place.name}.{part}", prod(shape) * kind.itemsize, make


def _plain(place: Place, seed: int, dtype: torch.dtype, width: float) -> torch.Tensor:
    if len(place.shape) == 1:  # norms are one, the routers' biases (float32) zero
        return torch.full(place.shape, float(dtype != torch.float32), dtype=dtype)
    return torch.empty(place.shape).normal_(0.0, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _quantized(part: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int, scheme: Scheme, width: float) -> torch.Tensor:
    if part == "values":
        drawn = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        if scheme.format == "float8":
            drawn &= 0xBF  # magnitudes below 2: no values that are not numbers
        return torch.from_numpy(drawn).view(dtype)
    # The deviation of even random values: 4.6 steps of int4, 74 of int8, about 0.7 of these float8 numbers.
    step = {"int4": width / 4.6, "int8": width / 74, "float8": width / 0.7}[scheme.format]
    scale = torch.full(shape, step, dtype=dtype)
    if scheme.format == "int4":
        scale[..., 1] = step / 2  # the zero point: values 0 to 15 then have mean zero
    return scale
