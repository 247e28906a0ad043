"""Which files a model on the hub consists of: one request, pinned to one commit.

"org/name" and revision -> `Listing`: commit, and name, size and hash of every file that this program may fetch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from llada_uni.errors import UserError
from llada_uni.files.model_dir import PARTS, Part
from llada_uni.hub.failures import failures_of
from llada_uni.hub.names import MAIN


@dataclass(frozen=True)
class Access:
    """How the hub is reached; None is what the client takes by itself (HF_TOKEN, HF_HOME, HF_ENDPOINT, offline mode).

    revision: branch, tag or commit. local_files_only: nothing is asked of the network.
    """

    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: Path | None = None
    local_files_only: bool = False

    @property
    def cache(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache_dir or constants.HF_HUB_CACHE).expanduser()

    @property
    def offline(self) -> bool:
        from huggingface_hub import constants

        return self.local_files_only or constants.HF_HUB_OFFLINE


@dataclass(frozen=True)
class RemoteFile:
    """One file: size in bytes; sha256 of a large one, else None; blob: the id that git gives its content (SHA-1)."""

    name: str
    size: int
    sha256: str | None
    blob: str

    @property
    def etag(self) -> str:
        """The name of its content: what the hub calls ETag, and the cache's name of the file."""
        return self.sha256 or self.blob


@dataclass(frozen=True)
class Listing:
    """The files of a model at one commit, those that this program may fetch: weights, JSON and tokenizer files of `PARTS`."""

    id: str
    revision: str
    commit: str
    files: Mapping[str, RemoteFile]

    def of(self, parts: Iterable[Part]) -> list[RemoteFile]:
        """The files of some parts, small ones first."""
        parts = tuple(parts)
        found = (file for file in self.files.values() if any(belongs(file.name, part) for part in parts))
        return sorted(found, key=lambda file: (file.size, file.name))

    @property
    def small(self) -> list[RemoteFile]:
        """Configs, settings and tables: what says what the model is. Without the text tokenizer's megabytes."""
        return [file for file in self.of(PARTS) if file.name.endswith(".json") and not file.name.startswith("tokenizer")]


def belongs(name: str, part: Part) -> bool:
    """Whether the file `name` (with slashes, relative to the directory) is one of the part's."""
    where = PurePosixPath(name).parent
    return any(where == PurePosixPath(p).parent and fnmatch(name, p) for p in part.patterns)


def list_files(id: str, access: Access) -> Listing:
    """Asks the hub. UserError for every answer but a list; `HubUnreachable` when there is none."""
    from huggingface_hub import HfApi

    revision = access.revision or MAIN
    with failures_of(id):
        info = HfApi(token=access.token).model_info(id, revision=revision, files_metadata=True)
    files = {}
    for entry in info.siblings or []:
        name = entry.rfilename
        if not any(belongs(name, part) for part in PARTS):
            continue
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise UserError(f"{id} has a file named {name!r}, which would leave its directory; nothing was fetched")
        if entry.size is None or entry.blob_id is None:
            raise UserError(f"the hub gives no size and hash of {name} of {id}; is HF_ENDPOINT a hub?")
        files[name] = RemoteFile(name, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
    if not files:
        raise UserError(f"{id} holds no part of a model that is known here; check the name")
    if not info.sha:
        raise UserError(f"the hub does not say which commit {revision} of {id} is; is HF_ENDPOINT a hub?")
    return Listing(id, revision, info.sha, files)
