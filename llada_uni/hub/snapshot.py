"""A model of the hub as a directory that fills when it is needed: the snapshot in the client's own cache.

"org/name" -> `Snapshot`: its configs are fetched at once, the files of a part when `need` asks for the part. Without a
connection the cache serves alone, where it holds what is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from llada_uni.errors import UserError
from llada_uni.files.configs import read_json
from llada_uni.files.model_dir import INDEX, PARTS, Part
from llada_uni.hub.batch import OnFetch, fetch_all
from llada_uni.hub.failures import HubUnreachable, failures_of
from llada_uni.hub.listing import Access, Listing, RemoteFile, list_files
from llada_uni.hub.names import cache_root, is_cache_root, is_commit, snapshot_of


class Snapshot:
    """Files of one model at one commit, below `folder`. listing: None where only the cache is asked."""

    def __init__(self, id: str, access: Access, folder: Path, listing: Listing | None, on_fetch: OnFetch | None = None) -> None:
        self.id, self.folder, self.listing = id, folder, listing
        self._access, self._on_fetch = access, on_fetch
        self._there: set[str] = set()

    @classmethod
    def open(cls, id: str, access: Access, on_fetch: OnFetch | None = None) -> Snapshot:
        """Asks the hub for the commit and fetches the configs. UserError where neither hub nor cache has the model.

        A hub that does not answer is no fault where the cache has the revision: a line on stderr says so.
        """
        root = cache_root(access.cache, id)
        unreachable: HubUnreachable | None = None
        if not access.offline:
            try:
                listing = list_files(id, access)
                snapshot = cls(id, access, root / "snapshots" / listing.commit, listing, on_fetch)
                snapshot.fetch(listing.small, f"configs of {id}")
                snapshot.refer()
                return snapshot
            except HubUnreachable as error:
                unreachable = error
        try:
            if not is_cache_root(root):
                raise UserError(f"the cache {access.cache} does not have {id}")
            folder = snapshot_of(root, access.revision)
        except UserError as error:
            why = "it is not fetched: HF_HUB_OFFLINE or local_files_only is set" if unreachable is None else str(unreachable)
            raise UserError(f"{error}; {why}") from error
        if unreachable is not None:
            print(f"{unreachable}; using the files of {id} that the cache has", file=sys.stderr)
        return cls(id, access, folder, None, on_fetch)

    def need(self, part: Part) -> None:
        """Sees to it that the part's files are in `folder`; a part that the model does not have is no fault of this."""
        if part.name in self._there:
            return
        if self.listing is not None:
            self.fetch(self.listing.of([part]), f"{part.name} of {self.id}")
        else:
            self._check_cached(part)
        self._there.add(part.name)

    def need_all(self, parts: Iterable[Part] = PARTS) -> None:
        for part in parts:
            self.need(part)

    def fetch(self, files: list[RemoteFile], what: str) -> None:
        """These files, where they are not there yet."""
        assert self.listing is not None  # without a listing there are no files to name
        missing = [file for file in files if not (self.folder / file.name).is_file()]
        blobs = self.folder.parents[1] / "blobs"
        targets = [(file, blobs / file.etag) for file in missing if not (blobs / file.etag).is_file()]
        locks = self._access.cache / ".locks" / cache_root(self._access.cache, self.id).name  # those of the client
        fetch_all(self.listing, targets, blobs, locks, what, self._access.token, self._on_fetch)
        for file in missing:
            self._name(file)

    def _name(self, file: RemoteFile) -> None:
        """The client gives the file its name in the snapshot (a link, or a copy where there are none)."""
        from huggingface_hub import hf_hub_download

        assert self.listing is not None  # as in `fetch`
        with failures_of(self.id, file.name):
            hf_hub_download(
                self.id, file.name, revision=self.listing.commit, cache_dir=self._access.cache, token=self._access.token
            )

    def refer(self) -> None:
        """The name of the revision leads to this commit, also without a connection."""
        assert self.listing is not None  # who asks has heard from the hub
        if is_commit(self.listing.revision):
            return
        path = self.folder.parents[1] / "refs" / self.listing.revision
        with failures_of(self.id):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(self.listing.commit, encoding="utf-8")
            os.replace(temporary, path)

    def _check_cached(self, part: Part) -> None:
        """UserError when the cache has a part by halves: its config and not its weights."""
        folder = part.path(self.folder)
        if not part.there(self.folder) or not part.weights:
            return
        there = list(folder.glob("*.safetensors"))
        shards = {name for index in folder.glob(f"*.safetensors{INDEX}") for name in _shards(index)}
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing or not (there or shards):
            what = f"{len(missing)} files ({missing[0]}, ...)" if missing else "the weights"
            raise UserError(
                f"the cache lacks {what} of {part.name} of {self.id}: run llada-uni pull {self.id} with a connection"
            )


def _shards(index: Path) -> list[str]:
    listed = read_json(index).get("weight_map")
    return [str(file) for file in listed.values()] if isinstance(listed, dict) else []
