"""The common ground of the recorded checks: rows, comparisons, and which files are there.

A part's check yields `Row`s; running one gives the largest error and a word about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llada_uni.errors import UserError
from llada_uni.files.model_dir import Part, find_weights

Result = tuple[float, str]  # largest error, detail
Row = tuple[str, float, Callable[[], Result]]  # name, tolerance, what to run


def has(folder: Path, *files: str) -> bool:
    """Whether all these files are in the folder."""
    return all((folder / file).is_file() for file in files)


def has_part(folder: Path, part: Part) -> bool:
    """Whether the config and the weights of a part are in its `folder`."""
    try:
        find_weights(folder, part.weights)
    except UserError:
        return False
    return (folder / part.marker).is_file()


def difference(found: torch.Tensor, recorded: torch.Tensor) -> Result:
    if found.shape != recorded.shape:
        raise UserError(f"the shape is {list(found.shape)}, recorded is {list(recorded.shape)}")
    if found.numel() == 0:
        return 0.0, ""
    return (found.cpu().double() - recorded.cpu().double()).abs().max().item(), ""


def mismatches(found: list[Any], recorded: list[Any], what: str) -> Result:
    if len(found) != len(recorded):
        return float(max(len(found), len(recorded))), f"{len(found)} {what}, recorded are {len(recorded)}"
    wrong = [i for i, (ours, theirs) in enumerate(zip(found, recorded, strict=True)) if ours != theirs]
    if not wrong:
        return 0.0, f"{len(found)} {what}"
    first = wrong[0]
    return float(len(wrong)), f"{what} {first}: {found[first]}, recorded {recorded[first]}"


def natural(name: str) -> list[Any]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name)]
