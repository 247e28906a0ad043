"""A model directory -> the same with the routed experts quantized, shard by shard.

Experts of the source, one at a time -> values and scales of one stacked tensor -> a shard
-> a directory that opens like any other. Memory: the experts of one place mapped, one output shard, and the
copy that safetensors makes of it while writing. The other parts are linked where the file system can, small
files copied. All or nothing: the target takes its name when everything is on the disk.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError

from llada_uni.backbone.quantized import QuantizedMatrix
from llada_uni.backbone.quantized_formats import DEFAULT_GROUP, Quantized, Scheme, make_scheme
from llada_uni.checkpoint.layout import Place, axis_sizes, places
from llada_uni.checkpoint.load import Piece, new_directory, write_shards
from llada_uni.checkpoint.source import Source, config_json
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.weights import storable, write_json

SHARD_BYTES = 10**9  # twice this, and one place of the source, is the memory it takes
_LINKED_BYTES = 2**20  # files of at least this size are linked, so that an edited small file stays one's own
OnProgress = Callable[[int, int], None]  # experts done, of how many


@dataclass(frozen=True)
class QuantizedDirectory:
    """What was written: bytes of the backbone before and after."""

    scheme: Scheme
    bytes_before: int
    bytes_after: int


def quantize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    format: str,
    group: int = DEFAULT_GROUP,
    max_shard_bytes: int = SHARD_BYTES,
    on_progress: OnProgress | None = None,
) -> QuantizedDirectory:
    """Writes `target`: the model directory `source` with routed experts in `format` ("int8", "int4", "float8").

    group: columns that share a scale in int4. Everything but the experts keeps its dtype. Raises UserError for
    an unknown format, a source that is quantized already (released FP8 directories are taken), an existing
    target, and a disk that is or becomes full; then nothing is left behind.
    """
    scheme = make_scheme(format, group)
    stored = Source(source)
    if stored.ours:
        assert stored.scheme is not None  # what `ours` says
        raise UserError(f"{source} is quantized already ({stored.scheme.format}); quantize the directory it was made of")
    needed = stored_bytes(stored.config, scheme, stored.dtype)
    _check_disk(Path(target), needed)
    try:
        with new_directory(source, target, stored, copy=_link_or_copy) as folder:
            write_shards(folder, quantized_pieces(stored, scheme, on_progress), max_shard_bytes)
            write_json(folder / "config.json", config_json(stored.config, scheme))
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error):
            raise UserError(f"the disk of {target} is full ({_gigabytes(needed)} are needed); nothing was written") from error
        raise
    before = sum(file.stat().st_size for file in stored.weights.files)
    return QuantizedDirectory(scheme, before, needed)


def stored_bytes(
    config: BackboneConfig, scheme: Scheme | None, dtype_of: Callable[[Place], torch.dtype] = lambda place: torch.bfloat16
) -> int:
    """Bytes of a backbone's weights with its experts in `scheme`, the rest (None: all) in the dtypes of `dtype_of`."""
    total = 0
    for place in places(config):
        if scheme is not None and place.stacked:
            total += sum(prod(shape) * dtype.itemsize for shape, dtype in scheme.shapes(*place.shape).values())
        else:
            total += prod(place.shape) * dtype_of(place).itemsize
    return total


def quantized_pieces(
    stored: Source, scheme: Scheme, on_progress: OnProgress | None = None, table: Sequence[Place] | None = None
) -> Iterator[Piece]:
    """The tensors to write; the two of a stacked place are made together, when the first is asked for.

    table: the places in another order than the network's.
    """
    table = places(stored.config) if table is None else table
    total = axis_sizes(stored.config)["E"] * sum(place.stacked for place in table)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    for place in table:
        if not place.stacked:
            dtype = stored.dtype(place)

            def plain(place: Place = place, dtype: torch.dtype = dtype) -> torch.Tensor:
                return storable(stored.whole(place, "cpu", dtype), None)

            yield place.name, prod(place.shape) * dtype.itemsize, plain
            continue
        made: dict[str, torch.Tensor] = {}
        for part, (shape, dtype) in scheme.shapes(*place.shape).items():

            def get(place: Place = place, part: str = part, made: dict[str, torch.Tensor] = made) -> torch.Tensor:
                if not made:
                    made.update(_quantized(stored, place, scheme, count)._asdict())
                return made.pop(part)

            yield f"{place.name}.{part}", prod(shape) * dtype.itemsize, get


def _quantized(stored: Source, place: Place, scheme: Scheme, count: Callable[[], None]) -> Quantized:
    """All experts of one place."""
    matrix = QuantizedMatrix(scheme, *place.shape)
    for expert in range(place.shape[0]):
        matrix.put(expert, stored.expert(place, expert))
        count()
    stored.weights.release()
    return Quantized(matrix.values, matrix.scale)


def _check_disk(target: Path, needed: int) -> None:
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"the disk of {target} has {_gigabytes(free)} free, but {_gigabytes(needed)} are needed; nothing was written"
        )


def _link_or_copy(source: str, target: str) -> None:
    """One file by another name, where that is possible and worth it. Our writers replace files, never change them."""
    if os.path.getsize(source) >= _LINKED_BYTES:
        try:
            os.link(os.path.realpath(source), target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copy2(source, target)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
