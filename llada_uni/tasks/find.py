"""Where a model is: a directory, the hub's cache, a name on the hub, or the shipped one.

name or path -> its directory, and how a part that is not there yet gets there (`Need`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from llada_uni.errors import UserError
from llada_uni.files import shipped
from llada_uni.files.model_dir import KNOWN, Part
from llada_uni.hub.listing import Access
from llada_uni.hub.names import id_of, is_cache_root, is_id, model_here, no_model
from llada_uni.hub.record import check_complete
from llada_uni.hub.snapshot import Snapshot

ENVIRONMENT = "LLADA_UNI_MODEL"
Need = Callable[[Part], None]
"""Called with a part before its weights are read: fetches them where the model is one of the hub."""


def nothing_needed(part: Part) -> None:
    """The `Need` of a directory: what is not there does not come."""


def find_model(name_or_dir: str | os.PathLike[str] | None = None, access: Access | None = None) -> Path:
    """The directory of a model with all its parts; for one of the hub, they are fetched. See `open_model`."""
    folder, need = open_model(name_or_dir, access)
    if isinstance(need, _Fetched):
        need.snapshot.need_all()
    return folder


def name_of(folder: Path) -> str:
    """What a model is called: the name of its directory, or "org/name" for one in the hub's cache."""
    folder = folder.resolve()
    root = folder.parent.parent
    return id_of(root) if folder.parent.name == "snapshots" and is_cache_root(root) else folder.name


class _Fetched:
    """The `Need` of a model of the hub."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def __call__(self, part: Part) -> None:
        self.snapshot.need(part)


def open_model(name_or_dir: str | os.PathLike[str] | None = None, access: Access | None = None) -> tuple[Path, Need]:
    """The directory of a model, and its `Need`.

    name_or_dir: a directory (also a cache root `models--org--name`, whose revision is `access.revision`); else a name
    "org/name" on the hub, of which only the configs are fetched now; the name of a model
    that comes with the program (files/shipped.py); None for what LLADA_UNI_MODEL names, else `shipped.MODEL`.
    UserError when nothing is there, and for half a download.
    """
    access = access or Access()
    if name_or_dir is None:
        name_or_dir = os.environ.get(ENVIRONMENT) or shipped.MODEL
    if not isinstance(name_or_dir, str | os.PathLike) or not str(name_or_dir).strip():
        raise UserError(f"a model is a directory, or a name as a string, not {name_or_dir!r}")
    path = model_here(name_or_dir, access.revision)
    if path is None:
        if isinstance(name_or_dir, str) and is_id(name_or_dir) and not Path(name_or_dir).exists():
            return _on_the_hub(name_or_dir, access)
        raise no_model(name_or_dir)
    check_complete(path)
    if not any((path / name).exists() for name in KNOWN):
        raise UserError(f"{path} holds no model: none of {', '.join(KNOWN)} is there")
    return path, nothing_needed


def _on_the_hub(id: str, access: Access) -> tuple[Path, Need]:
    try:
        snapshot = Snapshot.open(id, access)
    except UserError as error:
        raise UserError(f"{error} (there is no directory {id} here either)") from error
    return snapshot.folder, _Fetched(snapshot)
