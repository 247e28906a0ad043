"""Several files at once: is there room, who reports, and when one fails the others stop.

files with their targets -> room checked -> transfers in threads -> files. Also the two ways to report progress: a callback, or
lines on stderr.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from llada_uni.errors import UserError
from llada_uni.hub.failures import failures_of
from llada_uni.hub.listing import Listing, RemoteFile
from llada_uni.hub.transfer import fetch, partial_path

THREADS = 4
SPARE = 64 * 2**20  # bytes that stay free: configs, indexes, the file system's own tables
_EVERY = 5.0  # seconds between two lines

OnFetch = Callable[[int, int, str], None]
"""Called with bytes that are there, bytes in all, and what is fetched."""


class Count:
    """Adds up the bytes of several transfers and tells them on."""

    def __init__(self, total: int, what: str, on_fetch: OnFetch) -> None:
        self.total, self.what, self._on_fetch = total, what, on_fetch
        self.done, self._lock = 0, threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            self._on_fetch(self.done, self.total, self.what)


class Lines:
    """Progress as a line on stderr now and then: good in a log, a notebook and beside a spinner."""

    def __init__(self) -> None:
        self._next, self._what = 0.0, ""

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._next = what, 0.0
        if now >= self._next or done == total:
            self._next = now + _EVERY
            print(f"fetching {what}: {gigabytes(done)} of {gigabytes(total)}", file=sys.stderr, flush=True)


def gigabytes(count: int) -> str:
    """Bytes for a person: "1.23 GB", "45 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def check_space(where: Path, needed: int, what: str) -> None:
    """UserError when the disk of `where` (which need not exist) has not `needed` bytes free, and some to spare."""
    there = next(folder for folder in (where.absolute(), *where.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed and free < needed + SPARE:
        raise UserError(
            f"{what} needs {gigabytes(needed + SPARE)} more on the disk of {there}, which has {gigabytes(free)} free; nothing "
            "was fetched: free space, name another disk (--to, HF_HOME), or take less (--parts, --quantization int4)"
        )


def still_needed(files: Sequence[RemoteFile], partials: Path) -> int:
    """Bytes that are not on the disk yet, beginnings counted."""
    beginnings = (partial_path(partials, file) for file in files)
    return sum(file.size for file in files) - sum(path.stat().st_size for path in beginnings if path.is_file())


def fetch_all(
    listing: Listing,
    wanted: Sequence[tuple[RemoteFile, Path]],
    partials: Path,
    locks: Path,
    what: str,
    token: str | bool | None = None,
    on_fetch: OnFetch | None = None,
) -> None:
    """Fetches every file to its target, `THREADS` at a time; files of equal content once.

    partials: the folder of beginnings, on the targets' disk; locks: see `transfer.fetch`. UserError of the first that
    fails, when all have stopped; their beginnings are kept. Nothing is begun where the disk is too small.
    """
    if not wanted:
        return
    first = {file.etag: (file, target) for file, target in reversed(wanted)}
    files = [file for file, _ in first.values()]
    equal = sum(file.size for file, target in wanted if target != first[file.etag][1])
    check_space(partials, still_needed(files, partials) + equal, what)
    count = Count(sum(file.size for file in files), what, on_fetch or Lines())
    ending = threading.Event()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="hub")
    try:
        running = [
            pool.submit(fetch, listing, file, target, partials, locks, token, count.add, ending.is_set)
            for file, target in first.values()
        ]
        finished, _ = wait(running, return_when=FIRST_EXCEPTION)
        failed = next((error for job in finished if (error := job.exception()) is not None), None)
        if failed is not None:
            raise failed
    finally:
        ending.set()
        pool.shutdown(cancel_futures=True)
    for file, target in wanted:
        if target != first[file.etag][1]:
            with failures_of(listing.id, file.name):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(first[file.etag][1], target)
