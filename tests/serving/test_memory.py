"""The allocator of a server keeps few arenas, and free pages go back to the system."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llada_uni.serving import memory

PROGRAM = """
import ctypes, re, sys, threading
from llada_uni.serving.memory import keep_little
if "bounded" in sys.argv:
    assert keep_little()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
here = threading.Barrier(9)

def work():
    kept = [library.malloc(3000) for _ in range(2000)]
    here.wait()
    for address in kept:
        library.free(address)

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
here.wait()
for thread in threads:
    thread.join()
library.fopen.restype, library.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
library.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
file = library.fopen(sys.argv[1].encode(), b"w")
library.malloc_info(0, file)
library.fclose(file)
print(len(re.findall("<heap nr=", open(sys.argv[1]).read())))
"""

glibc_only = pytest.mark.skipif(memory._glibc() is None, reason="the allocator is not glibc's")


@glibc_only
def test_threads_share_few_arenas(tmp_path):
    def arenas(*words):
        environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "info.xml"), *words]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    assert arenas("bounded") <= memory.ARENAS < arenas()


def test_what_the_environment_says_stands(monkeypatch):
    monkeypatch.setenv("MKL_DISABLE_FAST_MM", "0")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    called = []

    class Library:
        def mallopt(self, name, value):
            called.append(name)

    monkeypatch.setattr(memory, "_glibc", Library)
    assert memory.keep_little()
    assert os.environ["MKL_DISABLE_FAST_MM"] == "0" and os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
    assert memory._M_ARENA_MAX not in called


def test_free_pages_are_given_back_after_work_only(monkeypatch):
    trims = []

    class Library:
        def malloc_trim(self, pad):
            trims.append(pad)

    monkeypatch.setattr(memory, "_glibc", Library)
    trimmer = memory.Trimmer(seconds=0.01)
    trimmer.start()
    trimmer._end.wait(0.1)
    assert not trims
    trimmer.worked()
    for _ in range(500):
        if trims:
            break
        trimmer._end.wait(0.01)
    trimmer.close()
    assert trims == [0]
