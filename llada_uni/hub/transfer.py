"""One file from the hub onto this disk: resumed where it stopped, its hash checked before it takes its name.

address, size, hash -> a partial file that grows -> the file. The client of version 2 begins every interrupted file again (its
temporary file has a new name each time), so the partial file is ours; requests, redirects, tokens and retries are the client's.
A process that is killed loses what the client holds in memory: at most one of its chunks (10 MiB).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError
from llada_uni.files.weights import add_file
from llada_uni.hub.failures import failures_of
from llada_uni.hub.listing import Listing, RemoteFile

OnBytes = Callable[[int], None]  # bytes that have come to be there (less than zero: they were thrown away)
Stopped = Callable[[], bool]


class _Silent:
    """The client's progress bar, showing nothing."""

    def __init__(self, *given: Any, **more: Any) -> None:
        self.n = 0

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: float = 1) -> None:
        pass

    def close(self) -> None:
        pass


class _Interrupted(Exception):
    """Another file failed: this one stops as well."""


class _Growing(FileIO):
    """A file that hashes what is written to it; unbuffered, so that a kill loses nothing that was written."""

    def __init__(self, path: Path, digest: _Digest, on_bytes: OnBytes, stopped: Stopped) -> None:
        super().__init__(path, "ab+")
        self._digest, self._on_bytes, self._stopped = digest, on_bytes, stopped

    def write(self, data: Any) -> int:
        if self._stopped():
            raise _Interrupted
        view = memoryview(data)
        while view:
            written = super().write(view)
            self._digest.add(view[:written])
            self._on_bytes(written)
            view = view[written:]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """The client begins again: the server did not send the rest but the whole."""
        before = os.fstat(self.fileno()).st_size
        kept = super().truncate(size)
        self._on_bytes(kept - before)
        self._digest.restart()
        return kept


class _Digest:
    """The hash by which the hub knows a file: SHA-256 of a large one, git's id of a small one."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.restart()

    def restart(self) -> None:
        of_git = b"blob %d\0" % self._file.size
        self._hash = hashlib.sha256() if self._file.sha256 else hashlib.sha1(of_git, usedforsecurity=False)

    def add(self, data: Any) -> None:
        self._hash.update(data)

    def add_file(self, path: Path) -> None:
        add_file(self._hash, path)

    @property
    def value(self) -> str:
        return self._hash.hexdigest()


def is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether the file on disk has the hub's size and hash; reads all of it."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    digest = _Digest(file)
    digest.add_file(path)
    return digest.value == file.etag


def partial_path(folder: Path, file: RemoteFile) -> Path:
    """Where the beginning of a file waits; of the same name as in older clients, so that their beginnings are used, too."""
    return folder / f"{file.etag}.incomplete"


def fetch(
    listing: Listing,
    file: RemoteFile,
    target: Path,
    partials: Path,
    locks: Path,
    token: str | bool | None = None,
    on_bytes: OnBytes = lambda count: None,
    stopped: Stopped = lambda: False,
) -> None:
    """Fetches `file` to `target`. partials: the folder of beginnings, on the same disk; locks: a folder in which a second
    process waits for the first, and then finds the file there.

    Where a resumed file has the wrong hash, its beginning was damaged: it is fetched once more from the start. UserError for
    a wrong hash after that (the file is deleted), and for every failure of network and disk (the beginning is kept).
    """
    from huggingface_hub.utils import WeakFileLock

    partial = partial_path(partials, file)
    with failures_of(listing.id, file.name), ExitStack() as stack:
        for folder in (partials, target.parent, locks):
            folder.mkdir(parents=True, exist_ok=True)
        before = target.stat() if target.is_file() else None
        stack.enter_context(WeakFileLock(locks / f"{file.etag}.lock"))
        now = target.stat() if target.is_file() else None
        if now is not None and (before is None or now.st_ino != before.st_ino) and now.st_size == file.size:
            on_bytes(file.size)  # another process has just fetched it
            return
        for _ in range(2):
            resumed = partial.is_file() and partial.stat().st_size > 0
            value = _transfer(listing, file, partial, token, on_bytes, stopped)
            if value == file.etag:
                os.replace(partial, target)
                return
            partial.unlink()
            on_bytes(-file.size)
            if not resumed:
                break
    kind = "SHA-256" if file.sha256 else "git id"
    raise UserError(
        f"{file.name} of {listing.id} arrived with the {kind} {value[:12]}..., the hub's is {file.etag[:12]}...; it was "
        "deleted: try again, and if that does not help, report it to the model's owner"
    )


def _transfer(
    listing: Listing, file: RemoteFile, partial: Path, token: str | bool | None, on_bytes: OnBytes, stopped: Stopped
) -> str:
    """Lets the partial file grow to its size; its hash."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    digest = _Digest(file)
    have = partial.stat().st_size if partial.is_file() else 0
    if have > file.size:
        partial.unlink()
        have = 0
    if have:
        digest.add_file(partial)
        on_bytes(have)
    headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}
    url = hf_hub_url(listing.id, file.name, revision=listing.commit)
    with _Growing(partial, digest, on_bytes, stopped) as growing:
        if have < file.size:
            http_get(url, growing, resume_size=have, headers=headers, expected_size=file.size, tqdm_class=_Silent)  # type: ignore[arg-type]
        os.fsync(growing.fileno())
    return digest.value
