"""Compiles the C++ of this folder for the processor at hand, once, and loads it.

sources + processor + torch version -> a name in the cache folder -> compiled there unless it is there -> a loaded library,
or the reason why there is none. Nothing here raises: without a compiler the engine runs on torch's own operators.

A plain call of the compiler and not torch's extension loader, which needs ninja, waits for ever for a lock that a killed
process left, and links a second OpenMP runtime beside torch's, whose idle threads then take the processor from each other.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock, Timeout

from llada_uni.files.weights import atomic_file

SOURCE = "experts.cpp"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-w")
PROCESSOR = (("-march=native",), ("-mcpu=native",), ())  # what a compiler may call "this very processor"
SECONDS = 300  # a compiler that takes longer counts as broken, and so does another process that compiles


class Loaded(NamedTuple):
    """The library, or None and why: one line."""

    library: ctypes.CDLL | None
    reason: str = ""


@cache
def loaded() -> Loaded:
    """The library of this process, compiled when it is first asked for."""
    return load(cache_folder())


def load(folder: Path) -> Loaded:
    """The library from `folder`, where it is compiled if it is not there."""
    target = folder / f"products-{key()}.so"
    try:
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(target.with_suffix(".lock"), timeout=SECONDS):
                reason = "" if target.exists() else compile_to(target)
            if reason:
                return Loaded(None, reason)
        return Loaded(ctypes.CDLL(str(target)))
    except (OSError, Timeout, NotImplementedError) as error:
        return Loaded(None, f"{target}: {error}")


def cache_folder() -> Path:
    """Where compiled libraries are kept: XDG_CACHE_HOME, else ~/.cache; a temporary folder where that cannot be written."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llada-uni"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        pass
    folder = Path(tempfile.mkdtemp(prefix="llada-uni-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def key() -> str:
    """Names a compiled library: other sources, another processor or another torch, another key."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.[ch]*")):
        digest.update(file.read_bytes())
    digest.update(repr((processor(), torch.__version__, sys.platform, PROCESSOR, FLAGS)).encode())
    return digest.hexdigest()[:16]


def processor() -> str:
    """What a compiler's "native" depends on: the machine's type and the instructions it knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    known = [line.split(":", 1)[1] for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return " ".join([platform.machine(), platform.processor(), *sorted(set(known))])


def compile_to(target: Path) -> str:
    """Compile into `target`, in one step. Returns "", or why it could not be done."""
    compiler = find_compiler()
    if compiler is None:
        return f"there is no C++ compiler ({', '.join(COMPILERS)}; CXX names another)"
    said = ""
    for threads in (openmp(), ([], [])):
        for own in PROCESSOR:
            try:
                with atomic_file(target) as temporary:
                    _compile([*compiler, *FLAGS, *own], temporary, *threads)
                return ""
            except (OSError, subprocess.SubprocessError) as error:
                said = str(error).splitlines()[0]
    return f"{shlex.join(compiler)} failed: {said}"


def _compile(command: list[str], target: Path, to_compile: list[str], to_link: list[str]) -> None:
    """Compile and link. Raises OSError with what the compiler said, or SubprocessError."""
    with tempfile.TemporaryDirectory() as folder:
        middle = str(Path(folder) / "products.o")
        source = str(Path(__file__).parent / SOURCE)
        for step in ([*to_compile, "-c", source, "-o", middle], ["-shared", middle, *to_link, "-o", str(target)]):
            done = subprocess.run([*command, *step], capture_output=True, text=True, timeout=SECONDS, errors="replace")
            if done.returncode:
                raise OSError(done.stderr.strip() or f"exit code {done.returncode}")


def find_compiler() -> list[str] | None:
    """The command of a C++ compiler: that of CXX, or the first there is."""
    given = shlex.split(os.environ.get("CXX", ""))
    if given:
        return given
    found = next((path for path in map(shutil.which, COMPILERS) if path), None)
    return None if found is None else [found]


def openmp() -> tuple[list[str], list[str]]:
    """(options for compiling, for linking) with threads: the runtime that torch brings, so that there is one pool of them."""
    own = sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*.dylib" if sys.platform == "darwin" else "libgomp*.so*"))
    to_compile = ["-Xpreprocessor", "-fopenmp"] if sys.platform == "darwin" else ["-fopenmp"]
    return to_compile, [str(own[0])] if own else ["-fopenmp"]
