"""Writing a whole folder in one step.

A temporary folder beside the target, filled by the caller -> the target's name. A crash leaves the old
folder or the new one, never half of one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llada_uni.errors import UserError
from llada_uni.files.outputs import check_takes_files


@contextmanager
def new_folder(target: str | os.PathLike[str], replaces: tuple[str, ...] = ()) -> Iterator[Path]:
    """Gives an empty folder to fill; when the block ends well it takes the target's name, else it is removed.

    replaces: a folder that holds one of these names may be replaced; any other that is not empty is left alone (UserError).
    """
    target = Path(target).expanduser()
    check_takes_files(target.parent, target)
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, a directory was expected")
    if target.is_dir() and any(target.iterdir()) and not any((target / name).exists() for name in replaces):
        raise UserError(f"{target} is not empty and holds something else: it is left as it is; name another directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        _replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace(new: Path, target: Path) -> None:
    if not target.exists():
        os.replace(new, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    os.replace(target, old / "was")
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(old / "was", target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
