"""`llada-uni pull --quantization`: a model of the hub with its routed experts made smaller on the way, shard by shard.

headers of the hub's shards -> which of them each of our files needs -> fetch, quantize, write, delete -> a directory as
`llada-uni quantize` makes it. The disk holds the result so far and the one or two shards that the next file is made of. Killed
and run again, it goes on with the first file that is missing.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from llada_uni.backbone.quantized_formats import FORMATS, Scheme, make_scheme
from llada_uni.checkpoint.layout import Place, places
from llada_uni.checkpoint.load import Piece, group_pieces, write_index, write_shard
from llada_uni.checkpoint.quantize import SHARD_BYTES, quantized_pieces
from llada_uni.checkpoint.source import Source, config_json
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE
from llada_uni.files.weights import atomic_file, write_json
from llada_uni.hub.batch import OnFetch, check_space, fetch_all, gigabytes
from llada_uni.hub.failures import failures_of
from llada_uni.hub.listing import Access, Listing, RemoteFile, belongs, list_files
from llada_uni.hub.pull import check_target, choose_parts, fetch_to, with_small
from llada_uni.hub.record import PARTIALS, Record
from llada_uni.hub.skeleton import header_of, is_weights, write_skeleton, write_sparse

_SOURCE = ".source"  # in the unfinished directory: headers of the hub's shards, and those shards that are needed now


@dataclass(frozen=True)
class Output:
    """One of our weight files: its tensors, its bytes, and the hub's shards it is made of."""

    name: str
    pieces: list[Piece]
    size: int
    shards: frozenset[str]


def pull_quantized(
    id: str,
    to: Path,
    format: str,
    parts: Any = None,
    access: Access | None = None,
    on_fetch: OnFetch | None = None,
    say: Callable[[str], None] = print,
    max_shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Fills `to` with the model, its experts in `format` ("int8", "int4", "float8"); until then it waits beside it.

    UserError as from `pull`; for an unknown format; for a model that is quantized already. The room for all of it is checked
    before anything large is fetched.
    """
    if format not in FORMATS:
        raise UserError(f"unknown quantization {format!r}; allowed: {', '.join(FORMATS)}")
    scheme, access, to = make_scheme(format), access or Access(), to.expanduser()
    listing, chosen = list_files(id, access), choose_parts(parts)
    shards = {file.name: file for file in listing.of([BACKBONE]) if is_weights(file.name)}
    if BACKBONE not in chosen or not shards:
        raise UserError(f"--quantization is of the backbone's experts: take {BACKBONE.name} among the parts")
    check_target(to, id)
    beside = [file for file in with_small(listing, listing.of(chosen)) if not belongs_to_weights(file)]
    config, others = listing.files[BACKBONE.marker], [file for file in beside if file.name != BACKBONE.marker]
    record = Record.of(listing, others, True, scheme.to_json())
    if (found := Record.read(to)) is not None and found.quantization is None:
        raise UserError(f"{to} holds {id} as it is published, and is left so; name another directory")
    if found == record:
        say(f"{to} is there and complete")
        return to
    work = to.parent / f".{to.name}.pull"
    _start(work, record, say)
    source = work / _SOURCE
    index = [file for file in listing.of([BACKBONE]) if belongs_to_weights(file) and not is_weights(file.name)]
    targets = [(file, source / file.name) for file in (config, *index) if not (source / file.name).is_file()]
    fetch_all(listing, targets, source / PARTIALS, source / PARTIALS, f"configs of {id}", access.token, on_fetch)
    write_skeleton(listing, list(shards.values()), source, access.token)
    stored = Source(source)
    if stored.ours:
        assert stored.scheme is not None  # that is what makes it ours
        shutil.rmtree(work)
        raise UserError(f"{id} is quantized already ({stored.scheme.format}); pull it without --quantization")
    outputs = plan(stored, scheme, max_shard_bytes)
    result, rest = sum(output.size for output in outputs), sum(file.size for file in others)
    say(f"{id} at {listing.commit[:12]}: {gigabytes(result)} in {format} and {gigabytes(rest)} beside it")
    there = sum(file.stat().st_size for file in work.glob("*.safetensors"))
    check_space(work, max(peak(outputs, shards), result + rest) - there, id)
    for number, output in enumerate(outputs):
        if not (work / output.name).is_file():
            _make(output, listing, shards, work, stored, access, on_fetch)
            say(f"{output.name}: {gigabytes(output.size)}, {number + 1} of {len(outputs)}")
        _drop(source, {name for later in outputs[number + 1 :] for name in later.shards}, stored)
    shutil.rmtree(source)
    fetch_to(record, listing, work, access, on_fetch, say)
    write_index(work, {output.name: output.pieces for output in outputs})
    write_json(work / BACKBONE.marker, config_json(stored.config, scheme))
    record.write(work)
    with failures_of(id, str(to)):
        if to.is_dir():
            shutil.rmtree(to)  # empty, or an earlier pull of the same model (check_target)
        os.replace(work, to)
    return to


def belongs_to_weights(file: RemoteFile) -> bool:
    """Whether it is one of the backbone's weight files, or their index."""
    return belongs(file.name, BACKBONE) and ".safetensors" in file.name


def _start(work: Path, record: Record, say: Callable[[str], None]) -> None:
    """The unfinished directory: a new one, or that of an earlier run of the same commit and format."""
    record = replace(record, complete=False)
    if work.is_dir() and Record.read(work) != record:
        say(f"{work} is of another revision or format: it is begun again")
        shutil.rmtree(work)
    with failures_of(record.id):
        work.mkdir(parents=True, exist_ok=True)
        for half in work.glob(".*.tmp"):  # what a killed process was writing
            half.unlink()
        record.write(work)


def plan(stored: Source, scheme: Scheme, max_shard_bytes: int) -> list[Output]:
    """Our files in an order in which the hub's shards are needed one after another."""
    order = {path: number for number, path in enumerate(stored.weights.files)}

    def last_and_first(place: Place) -> tuple[int, int]:
        needed = [order[path] for path in stored.files_of(place)]
        return max(needed), min(needed)

    table = sorted(places(stored.config), key=last_and_first)
    needs = {place.name: frozenset(path.name for path in stored.files_of(place)) for place in table}
    outputs = []
    for name, pieces in group_pieces(quantized_pieces(stored, scheme, table=table), max_shard_bytes).items():
        shards = frozenset[str]().union(*(needs[_place_of(piece[0], needs)] for piece in pieces))
        outputs.append(Output(name, pieces, sum(piece[1] for piece in pieces), shards))
    return outputs


def _place_of(name: str, known: dict[str, Any]) -> str:
    """The place that a tensor of ours belongs to: "X.values" and "X.scale" are X's."""
    return name if name in known else name.rpartition(".")[0]


def peak(outputs: list[Output], shards: dict[str, RemoteFile]) -> int:
    """Bytes that are on the disk at the most: results so far and the shards that are still needed."""
    most, written, there = 0, 0, set[str]()
    for number, output in enumerate(outputs):
        there |= output.shards
        written += output.size
        most = max(most, written + sum(shards[name].size for name in there))
        there &= {name for later in outputs[number + 1 :] for name in later.shards}
    return most


def _make(
    output: Output,
    listing: Listing,
    shards: dict[str, RemoteFile],
    work: Path,
    stored: Source,
    access: Access,
    on_fetch: OnFetch | None,
) -> None:
    """One of our files: its shards are fetched where they are not there, then it is written in one step."""
    source = work / _SOURCE
    for name in sorted(output.shards):
        if not _mark(source, name).is_file():
            target = [(shards[name], source / name)]
            fetch_all(listing, target, source / PARTIALS, source / PARTIALS, name, access.token, on_fetch)
            _mark(source, name).touch()
    stored.weights.release()  # what is mapped of these files is their skeleton
    with failures_of(listing.id, output.name), atomic_file(work / output.name) as file:
        try:
            write_shard(file, output.pieces)
        except SafetensorError as error:  # its word for every failure of the disk
            raise OSError(errno.ENOSPC if "os error 28" in str(error) else errno.EIO, str(error), str(file)) from error


def _mark(source: Path, name: str) -> Path:
    """There when the shard is whole, not a skeleton."""
    return source / f"{name}.whole"


def _drop(source: Path, needed: set[str], stored: Source) -> None:
    """Makes skeletons of the shards that no later file needs."""
    stored.weights.release()
    for mark in source.glob("*.whole"):
        name = mark.name.removesuffix(".whole")
        if name not in needed:
            size = (source / name).stat().st_size
            mark.unlink()
            write_sparse(source / name, header_of(source / name), size)
