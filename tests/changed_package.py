"""A copy of the package in which one file is changed, for tests of what a person would edit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llada_uni

PACKAGE = Path(llada_uni.__file__).parent


def changed_package(here: Path, file: str, text: str) -> Path:
    """Makes `here`/llada_uni with `text` in place of `file` (a path below the package); all else are links. Returns `here`."""
    folder, changed = PACKAGE, here / "llada_uni"
    for part in Path(file).parts:
        changed.mkdir(parents=True)
        for path in folder.iterdir():
            if path.name not in (part, "__pycache__"):
                (changed / path.name).symlink_to(path)
        folder, changed = folder / part, changed / part
    changed.write_text(text, encoding="utf-8")
    return here


def run_there(here: Path, *arguments: str) -> str:
    """What Python prints with these arguments and that package; AssertionError when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(here), "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
