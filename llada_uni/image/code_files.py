"""Images as files of codes: the published `.pt` of a pre-tokenized image, and our JSON.

file -> `read_codes` -> ImageCodes -> `write_codes` -> file. The published file is a dict written by torch, read with weights
only (no code runs): "semantic_token_ids" (int tensor; also "token_ids"), with or without the offset of image tokens, and the
grid: "metadata": {"processed_size": (width, height) in pixels} and, in ours as well, {"grid_thw": (1, rows, columns)}.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import torch

from llada_uni.errors import UserError
from llada_uni.files.configs import MAX_BYTES, read_json
from llada_uni.files.weights import atomic_file, load_torch, write_json
from llada_uni.image.codes import ImageCodes
from llada_uni.image.paths import SUFFIXES
from llada_uni.image.paths import is_code_file as is_code_file  # readers know it from here

_IDS = ("semantic_token_ids", "token_ids")


def read_codes(path: str | os.PathLike[str]) -> ImageCodes:
    """Codes from a file; those of a published one may still carry the offset (`ImageCodes.without_offset`).

    UserError for a file that is missing, damaged, too large, or holds something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file of codes {path}")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is too large for the codes of an image; allowed: at most {MAX_BYTES // 2**20} MiB")
    if path.suffix.lower() != ".pt":
        return ImageCodes.from_json(read_json(path))
    data = load_torch(path)
    if not isinstance(data, Mapping):
        raise UserError(f"{path} must hold a dict with {_IDS[0]} and metadata, not a {type(data).__name__}")
    ids = next((data[name] for name in _IDS if name in data), None)
    if ids is None:
        raise UserError(f"{path} holds no codes: neither {_IDS[0]} nor {_IDS[1]} is there")
    codes = _whole_numbers(ids, path, "the codes")
    rows, columns = _grid(data, len(codes), path)
    return ImageCodes(tuple(codes), rows, columns)


def write_codes(codes: ImageCodes, path: str | os.PathLike[str], patch_size: int) -> Path:
    """Writes JSON, or by a name ending with .pt the published format. patch_size: pixels of a code's side (released: 16)."""
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path.name} must end with {' or '.join(SUFFIXES)}")
    if path.suffix.lower() != ".pt":
        write_json(path, codes.to_json())
        return path
    size = (codes.width * patch_size, codes.height * patch_size)
    data = {
        "semantic_token_ids": torch.tensor(codes.codes, dtype=torch.int64),
        "metadata": {"processed_size": size, "grid_thw": (1, codes.height, codes.width)},
    }
    with atomic_file(path) as temporary:
        torch.save(data, temporary)
    return path


def _grid(data: Mapping[str, Any], count: int, path: Path) -> tuple[int, int]:
    """(rows, columns), from whichever way the file says it."""
    inner = data.get("metadata")
    for place in (inner if isinstance(inner, Mapping) else {}, data):
        if "grid_thw" in place:
            frames, rows, columns = _numbers(place["grid_thw"], 3, path, "grid_thw")
            if frames != 1:
                raise UserError(f"{path}: grid_thw says {frames} frames; allowed: 1")
            return rows, columns
        if "h" in place and "w" in place:
            return _numbers(place["h"], 1, path, "h")[0], _numbers(place["w"], 1, path, "w")[0]
        if "processed_size" in place:
            width, height = _numbers(place["processed_size"], 2, path, "processed_size")
            patch = isqrt(width * height // max(1, count))  # pixels of a code's side
            if patch < 1 or width % patch or height % patch or (width // patch) * (height // patch) != count:
                raise UserError(f"{path}: {count} codes do not fill an image of {width} x {height} px evenly")
            return height // patch, width // patch
    raise UserError(f"{path} does not say the grid: metadata with processed_size or grid_thw is missing")


def _numbers(value: Any, count: int, path: Path, what: str) -> list[int]:
    numbers = _whole_numbers(value, path, what)
    if len(numbers) != count or min(numbers) < 1:
        raise UserError(f"{path}: {what} must hold {count} whole numbers of at least 1")
    return numbers


def _whole_numbers(value: Any, path: Path, what: str) -> list[int]:
    if isinstance(value, torch.Tensor):
        value = None if value.is_floating_point() or value.is_complex() else value.flatten().tolist()
    found = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not found or any(isinstance(number, bool) or not isinstance(number, int) for number in found):
        raise UserError(f"{path}: {what} must be whole numbers")
    return found
