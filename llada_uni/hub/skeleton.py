"""A model of the hub as a directory without its weights: true configs, and weight files that are true headers before a hole.

listing -> of each weight file its first kilobytes (by range) -> sparse files of full size. Whoever reads names, shapes, dtypes
and sizes from a directory reads them from this one, and nothing large was fetched.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from llada_uni.errors import UserError
from llada_uni.files.model_dir import PARTS
from llada_uni.hub.batch import THREADS, fetch_all
from llada_uni.hub.failures import failures_of
from llada_uni.hub.listing import Access, Listing, RemoteFile, list_files
from llada_uni.hub.names import is_id, model_here, no_model

_FIRST = 2**17  # bytes of the first request: most headers are smaller
_LONGEST = 100 * 2**20  # bytes: the longest header that safetensors reads
_LENGTH = struct.Struct("<Q")


@contextmanager
def looked_at(name: str, access: Access | None = None) -> Iterator[tuple[Path, Listing | None]]:
    """A directory, a cache root, or a model on the hub or by the name of a shipped one, as a directory to read from.

    Of one on the hub only configs and headers are there. Gives its path, and the listing of one on the hub, whose skeleton
    goes when the block ends. UserError when there is none.
    """
    access, here = access or Access(), model_here(name, None if access is None else access.revision)
    if here is not None:
        yield here, None
        return
    if Path(name).expanduser().exists() or not is_id(name):
        raise no_model(name)
    listing = list_files(name, access)
    with tempfile.TemporaryDirectory(prefix="llada-uni-") as folder:
        files, partials = listing.of(PARTS), Path(folder) / ".partials"
        small = [(file, Path(folder) / file.name) for file in files if file.name.endswith(".json")]
        fetch_all(listing, small, partials, partials, f"configs of {name}", access.token, lambda *given: None)
        write_skeleton(listing, [file for file in files if is_weights(file.name)], Path(folder), access.token)
        yield Path(folder), listing


def is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def write_skeleton(listing: Listing, files: Sequence[RemoteFile], folder: Path, token: str | bool | None = None) -> None:
    """Writes the headers of the weight files among `files` below `folder`, where they are not there yet.

    UserError for a file that is no safetensors file, for a disk without sparse files, and for failures of the hub.
    """
    todo = [file for file in files if is_weights(file.name) and not (folder / file.name).is_file()]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hub") as pool:
        headers = list(pool.map(lambda file: fetch_header(listing, file, token), todo))
    for file, header in zip(todo, headers, strict=True):
        write_sparse(folder / file.name, header, file.size)


def write_sparse(path: Path, header: bytes, size: int) -> None:
    """A file of `size` bytes that holds a header and then nothing, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as out:
        out.write(header)
        out.truncate(size)
    blocks = getattr(temporary.stat(), "st_blocks", 0) * 512
    if blocks > len(header) + 2**20 and blocks > size // 2:
        temporary.unlink()
        raise UserError(f"the disk of {path.parent} has no sparse files; name a directory on another disk")
    os.replace(temporary, path)


def header_of(path: Path) -> bytes:
    """The length and the header of a safetensors file on this disk."""
    with open(path, "rb") as file:
        length = file.read(_LENGTH.size)
        return length + file.read(_LENGTH.unpack(length)[0])


def fetch_header(listing: Listing, file: RemoteFile, token: str | bool | None = None) -> bytes:
    """The length and the header of a safetensors file on the hub."""
    data = _first_bytes(listing, file, min(_FIRST, file.size), token)
    length = _LENGTH.unpack(data[: _LENGTH.size])[0] if len(data) >= _LENGTH.size else file.size
    end = _LENGTH.size + length
    if end > min(file.size, _LONGEST) or data[_LENGTH.size : _LENGTH.size + 1] != b"{":
        size = f"{file.size} bytes"
        raise UserError(f"{file.name} of {listing.id} is no safetensors file ({size}); report it to the model's owner")
    if end > len(data):
        data = _first_bytes(listing, file, end, token)
    return data[:end]


def _first_bytes(listing: Listing, file: RemoteFile, count: int, token: str | bool | None) -> bytes:
    """The first `count` bytes; no more are read where the server sends the whole file."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity", "Range": f"bytes=0-{count - 1}"}
    url = hf_hub_url(listing.id, file.name, revision=listing.commit)
    data = b""
    with failures_of(listing.id, file.name), get_session().stream("GET", url, headers=headers) as response:
        hf_raise_for_status(response)
        for piece in response.iter_bytes():
            data += piece
            if len(data) >= count:
                break
    return data[:count]
