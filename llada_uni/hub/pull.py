"""`llada-uni pull`: the files of a model, all or of some parts, whole and checked, in the cache or in a directory of one's own.

"org/name" -> listing -> what is there is hashed, what is missing is fetched -> a directory that opens like any other. The same
command goes on after an interruption. Quantizing on the way: hub/pull_quantized.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from llada_uni.errors import UserError
from llada_uni.files.model_dir import CODE_FEATURES, DECODERS, IMAGE_TOKENIZER, KNOWN, PARTS, SETTINGS, TEXT, Part
from llada_uni.hub.batch import Count, OnFetch, fetch_all, gigabytes
from llada_uni.hub.failures import failures_of
from llada_uni.hub.listing import Access, Listing, RemoteFile, list_files
from llada_uni.hub.names import cache_root
from llada_uni.hub.record import PARTIALS, Record
from llada_uni.hub.snapshot import Snapshot
from llada_uni.hub.transfer import is_whole

CHOICES = tuple(part for part in PARTS if part.weights)
"""What --parts may name; the small parts always come along."""
Say = Callable[[str], None]


def choose_parts(names: Sequence[str] | None) -> tuple[Part, ...]:
    """The parts of these names (None: all), and those they are nothing without. UserError for an unknown name."""
    if names is None:
        return PARTS
    known = {part.name: part for part in CHOICES}
    for name in names:
        if name not in known:
            raise UserError(f"unknown part {name!r}; allowed: {', '.join(known)}")
    chosen = {TEXT, SETTINGS, *(known[name] for name in names)}
    if chosen & {*DECODERS.values(), IMAGE_TOKENIZER}:
        chosen.add(CODE_FEATURES)
    return tuple(part for part in PARTS if part in chosen)


def pull(
    id: str,
    to: Path | None = None,
    parts: Sequence[str] | None = None,
    access: Access | None = None,
    on_fetch: OnFetch | None = None,
    say: Say = print,
) -> Path:
    """Fetches a model, or goes on fetching it; the directory. to: None is the cache of the hub's client.

    Every file is checked against the hub's hash, also those that are there already; a wrong one is fetched again. UserError
    for an unknown part, a directory that holds something else, a disk that is too small (before anything is fetched), and
    every failure on the way, after which what was fetched stays.
    """
    access, chosen = access or Access(), choose_parts(parts)
    listing = list_files(id, access)
    files = with_small(listing, listing.of(chosen))
    say(f"{id} at {listing.commit[:12]}: {len(files)} files, {gigabytes(sum(file.size for file in files))}")
    if to is None:
        return _to_cache(listing, chosen, files, access, on_fetch, say)
    to = to.expanduser()
    check_target(to, id)
    record = Record.of(listing, files, complete=True)
    fetch_to(record, listing, to, access, on_fetch, say)
    record.write(to)
    return to


def with_small(listing: Listing, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files, and every config of the model."""
    return list({file.name: file for file in (*listing.small, *files)}.values())


def check_target(to: Path, id: str) -> None:
    """UserError for a directory that holds something else than an earlier pull of this model."""
    if to.exists() and not to.is_dir():
        raise UserError(f"{to} is a file, a directory was expected")
    record = Record.read(to) if to.is_dir() else None
    if record is not None and record.id == id:
        return
    if to.is_dir() and any(to.iterdir()):
        holds = f"{record.id}" if record else "a model" if any((to / name).exists() for name in KNOWN) else "something else"
        raise UserError(f"{to} holds {holds} already and is left as it is; name another directory")


def fetch_to(
    record: Record, listing: Listing, to: Path, access: Access, on_fetch: OnFetch | None, say: Say
) -> None:
    """The record's files below the directory `to`, whole and checked; `to` says meanwhile that it is not complete."""
    files = list(record.files.values())
    with failures_of(listing.id):
        to.mkdir(parents=True, exist_ok=True)
    for file in files:
        inside = to / file.name
        if not inside.resolve().is_relative_to(to.resolve()):
            raise UserError(f"{inside} is a link that leads out of {to}; remove the link, nothing is written through it")
    missing = _not_whole(files, to, on_fetch)
    replace(record, complete=False).write(to)
    blobs = cache_root(access.cache, listing.id) / "blobs"
    for file in list(missing):
        if (blobs / file.etag).is_file() and is_whole(blobs / file.etag, file):
            (to / file.name).parent.mkdir(parents=True, exist_ok=True)
            with failures_of(listing.id, file.name):
                shutil.copyfile(blobs / file.etag, to / file.name)
            missing.remove(file)
    if there := len(files) - len(missing):
        say(f"{there} of {len(files)} files are there, their hashes right")
    targets = [(file, to / file.name) for file in missing]
    fetch_all(listing, targets, to / PARTIALS, to / PARTIALS, listing.id, access.token, on_fetch)
    shutil.rmtree(to / PARTIALS, ignore_errors=True)


def _not_whole(files: list[RemoteFile], folder: Path, on_fetch: OnFetch | None) -> list[RemoteFile]:
    """The files that are missing or have another hash; says how far the reading is."""
    there = [file for file in files if (folder / file.name).is_file()]
    missing = [file for file in files if file not in there]
    count = Count(sum(file.size for file in there), "(checking hashes)", on_fetch or (lambda *given: None))
    for file in there:
        if not is_whole(folder / file.name, file):
            missing.append(file)
        count.add(file.size)
    return missing


def _to_cache(
    listing: Listing, chosen: Sequence[Part], files: list[RemoteFile], access: Access, on_fetch: OnFetch | None, say: Say
) -> Path:
    root = cache_root(access.cache, listing.id)
    there = [file for file in files if (root / "blobs" / file.etag).is_file()]
    count = Count(sum(file.size for file in there), "(checking hashes)", on_fetch or (lambda *given: None))
    for file in there:
        blob = root / "blobs" / file.etag
        if not is_whole(blob, file):
            say(f"{file.name} in the cache is damaged: it is fetched again")
            blob.unlink()
        count.add(file.size)
    if there:
        say(f"{len(there)} of {len(files)} files are in the cache")
    snapshot = Snapshot(listing.id, access, root / "snapshots" / listing.commit, listing, on_fetch)
    snapshot.fetch(files, listing.id)
    snapshot.refer()
    return snapshot.folder
