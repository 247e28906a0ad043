"""Memory of a server that runs for weeks: the allocator keeps little of what threads have given back.

glibc gives every thread an arena of its own, up to eight a core, and an arena keeps what was once used at its end. A server
has dozens of threads that take and free megabytes, so memory grows with each that has worked once. `keep_little` bounds the
arenas and what the vendor's mathematics keeps for each thread; `Trimmer` gives free pages back to the system now and then.
Elsewhere than on glibc both do nothing.
"""

from __future__ import annotations

import ctypes
import os
import threading

ARENAS = 2
MMAP_THRESHOLD = 4 * 2**20  # bytes; larger blocks are mapped, and unmapped when they are freed
TRIM_SECONDS = 20.0
# What each reads once, when it starts: oneDNN's compiled kernels (one a shape of input), MKL's buffers of each thread.
ENVIRONMENT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "MKL_DISABLE_FAST_MM": "1"}
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of <malloc.h>


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc."""
    try:
        library = ctypes.CDLL(None)
        _ = library.gnu_get_libc_version, library.mallopt, library.malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return library


def keep_little() -> bool:
    """Bounds what the allocator keeps; before torch is imported, for all of it to hold. What the environment says stands
    (MALLOC_ARENA_MAX and the variables above). False where there is no glibc.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    library = _glibc()
    if library is None:
        return False
    if "MALLOC_ARENA_MAX" not in os.environ:
        library.mallopt(_M_ARENA_MAX, ARENAS)
    library.mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    return True


class Trimmer:
    """A thread that gives free pages back to the system every `seconds`, where anything has been done meanwhile.

    `worked` says that there may be something to give back.
    """

    def __init__(self, seconds: float = TRIM_SECONDS) -> None:
        self._seconds, self._library = seconds, _glibc()
        self._worked, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="llada-uni trimmer", daemon=True)

    def start(self) -> None:
        if self._library is not None:
            self._thread.start()

    def worked(self) -> None:
        self._worked.set()

    def close(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        assert self._library is not None, "started only where there is one"
        while not self._end.wait(self._seconds):
            if self._worked.is_set():
                self._worked.clear()
                self._library.malloc_trim(0)
