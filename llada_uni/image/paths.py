"""Names of files with images or their codes: checked before anything large is imported or read. Nothing here imports torch.

A path, also with ~ -> the file. UserError for what is no file, in the words that every door uses.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError
from llada_uni.image.data_uri import is_data_uri

SUFFIXES = (".pt", ".json")  # of files that hold codes


def is_code_file(source: Any) -> bool:
    """Whether a path names a file of codes; anything else is an image file, or no path."""
    if not isinstance(source, str | os.PathLike) or (isinstance(source, str) and is_data_uri(source)):
        return False
    return Path(source).suffix.lower() in SUFFIXES


def image_file(source: str | os.PathLike[str]) -> Path:
    """The file that a name means. UserError for an address, a directory, and a file that is not there."""
    if str(source)[:8].lower().startswith(("http:", "https:")):
        raise UserError(f"there is no picture {source} here: addresses are not fetched, download it and give the file")
    if not str(source).strip():
        raise UserError("the name of the picture is empty")
    path = Path(source).expanduser()
    if path.is_dir():
        raise UserError(f"{source} is a directory, a picture file was expected")
    if not path.is_file():
        raise UserError(f"there is no picture {source}")
    return path
