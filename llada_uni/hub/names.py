"""What a person may call a model on the hub, and the directories in which the hub's client keeps it.

name or path -> is it "org/name"?; cache root `models--org--name` and revision -> the snapshot's directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from llada_uni.errors import UserError
from llada_uni.files.shipped import MODEL, named_model

MAIN = "main"  # the revision where none is given
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_id(name: str) -> bool:
    """Whether `name` has the form of a hub name: owner, slash, model."""
    return bool(_ID.fullmatch(name)) and "--" not in name and ".." not in name


def is_commit(revision: str) -> bool:
    return bool(_COMMIT.fullmatch(revision))


def cache_root(cache: Path, id: str) -> Path:
    """Where the client keeps the model `id` below its cache directory."""
    return cache / f"models--{id.replace('/', '--')}"


def is_cache_root(path: Path) -> bool:
    return path.name.startswith("models--") and (path / "snapshots").is_dir()


def id_of(root: Path) -> str:
    """The hub's name of the model in a cache root."""
    return root.name.removeprefix("models--").replace("--", "/")


def model_here(name_or_dir: str | os.PathLike[str], revision: str | None = None) -> Path | None:
    """The directory that a name means on this machine: one of that path (also with ~; of a cache root the snapshot of a
    revision), else a shipped model. None where there is neither, and the name may be one on the hub.
    """
    path = named_model(name_or_dir)
    if not path.is_dir():
        return None
    return snapshot_of(path, revision) if is_cache_root(path) else path


def no_model(name_or_dir: str | os.PathLike[str]) -> UserError:
    """What is said where nothing is called so."""
    path = Path(name_or_dir).expanduser()
    return UserError(
        f"there is no model directory {path}; give a directory, or a name org/name on the hub, or the name {MODEL!r} of the "
        "shipped model"
    )


def snapshot_of(root: Path, revision: str | None = None) -> Path:
    """The directory of a revision (None: main, else the only one there) in a cache root `models--org--name`.

    UserError when the cache does not have it, with the revisions it has.
    """
    wanted = revision or MAIN
    reference = root / "refs" / wanted
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else wanted
    if (root / "snapshots" / commit).is_dir():
        return root / "snapshots" / commit
    there = sorted(path.name for path in (root / "snapshots").iterdir() if path.is_dir())
    if revision is None and len(there) == 1:
        return root / "snapshots" / there[0]
    known = sorted(str(path.relative_to(root / "refs")) for path in (root / "refs").rglob("*") if path.is_file())
    raise UserError(
        f"{root} has no revision {wanted!r}; it has {', '.join([*known, *there]) or 'none'}: name one of them, or fetch it "
        f"(llada-uni pull {id_of(root)} --revision {wanted})"
    )
