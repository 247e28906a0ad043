"""Large JSON files one element at a time (ijson): memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llada_uni.errors import UserError

_MARK = b"\xef\xbb\xbf"


def json_items(path: Path, prefix: str) -> Iterator[Any]:
    """The elements at `prefix` ("item" of a list, "annotations.item" of {"annotations": [...]}), in the file's order.

    UserError when the file cannot be read or is not JSON; what stood before the fault has been given by then.
    """
    try:
        import ijson
    except ImportError:
        raise UserError("large JSON files need ijson: pip install 'llada-uni[train]'") from None
    try:
        with open(path, "rb") as file:
            past_mark(file)
            yield from ijson.items(file, prefix, use_float=True)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({' '.join(str(error).split())[:160]})") from None


def past_mark(file: BinaryIO) -> None:
    """Moves past a byte order mark, where the file begins with one."""
    if file.read(len(_MARK)) != _MARK:
        file.seek(0)
