"""Whether a file can be written where it is to be, asked before the work whose result it will hold."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llada_uni.errors import UserError


def check_writable(path: str | os.PathLike[str]) -> None:
    """UserError where no file can come to be at `path`: a directory is there, or its own cannot be made, or takes no files.

    Tried out with a file without a name in the nearest directory that exists; nothing is left behind.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a directory, a file name was expected")
    check_takes_files(path.parent, path)


def check_takes_files(folder: Path, what: Path | None = None) -> None:
    """The same for a directory, which need not be there yet. what: the file that cannot be written, for the message."""
    try:
        nearest = next(one for one in (folder, *folder.parents) if one.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(f"cannot write {what or folder} ({error.strerror or error})") from error
