"""Does this machine compute the right numbers? Every part against the numbers recorded in a directory.

A directory (weights of all parts and recorded results; tests/parity/golden/README.md
lists the files) -> rows of checks (verify_backbone.py, verify_released.py, verify_image.py, verify_decoder.py)
-> one `Check` each. Sizes, block lengths and step counts are read from the directory, so any directory of that format works.
Each check stands alone: where a file it needs is missing it is left out, where it fails or crashes it is a
failed row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llada_uni.errors import UserError
from llada_uni.verify.compare import Result, Row
from llada_uni.verify.verify_backbone import BackboneChecks
from llada_uni.verify.verify_decoder import DecoderChecks
from llada_uni.verify.verify_image import ImageChecks
from llada_uni.verify.verify_released import ReleasedChecks

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One row: `largest_error` is the largest absolute difference (for ids, sizes and pixels: how many
    differ), None where none could be computed; it may be at most `tolerance`."""

    name: str
    ok: bool
    largest_error: float | None
    tolerance: float
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify(
    folder: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    tolerance: float = TOLERANCE,
    on_check: Callable[[Check], None] | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Check]:
    """All checks whose files are there; `on_check` hears of each as it is done.

    dtype: of the language model, float32 or float64; images and decoders are checked in float32.

    Raises UserError when the directory is missing or holds nothing to check.
    """
    if not Path(folder).is_dir():
        raise UserError(f"there is no directory {folder}")
    checks: list[Check] = []
    for name, limit, run in _rows(Path(folder), torch.device(device), tolerance, dtype):
        try:
            error, detail = run()
            ok, number = error <= limit, error if math.isfinite(error) else None
            check = Check(
                name,
                ok,
                number,
                limit,
                detail if number is not None else f"not finite; {detail}".rstrip("; "),
            )
        except Exception as problem:  # any crash of a part is what this command is there to report
            check = Check(
                name, False, None, limit, f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
            )
        checks.append(check)
        if on_check is not None:
            on_check(check)
    if not checks:
        raise UserError(
            f"{folder} holds no recorded numbers to check (see tests/parity/golden/README.md for the files)"
        )
    return checks


def _rows(folder: Path, device: torch.device, tolerance: float, dtype: torch.dtype) -> Iterator[Row]:
    backbone = BackboneChecks(folder, device, tolerance, dtype)
    image = ImageChecks(folder, device)
    decoder = DecoderChecks(folder, device, tolerance)
    groups = {
        "backbone.forward": backbone.forward_rows,
        "backbone.generation": backbone.generation_rows,
        "backbone.released": ReleasedChecks(backbone).rows,
        "image.codes": image.code_rows,
        "image.sizes": image.size_rows,
        "image.crop": image.crop_rows,
        "decoder": decoder.rows,
    }
    for name, rows in groups.items():
        try:
            yield from list(rows())
        except Exception as problem:  # a recording that cannot be read is one failed row; the others go on
            yield name, tolerance, _raiser(problem)


def _raiser(problem: Exception) -> Callable[[], Result]:
    def run() -> Result:
        raise problem

    return run
