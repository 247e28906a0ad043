"""Runs a function in several processes that talk through gloo, as torchrun would start them.

The processes are forked from a clean server that has imported torch once, so that a start takes milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import tempfile
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from llada_uni.training.loop.parallel import setup_processes

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.training.helpers.runs", "torch._dynamo"])  # optimizers import the latter


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """A process of its own that runs `function(*arguments)`."""
    process = _SERVER.Process(target=function, args=arguments)
    process.start()
    return process


def together(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(processes, *arguments)` returns in each of `count` processes, in the order of ranks."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        started = [start(_worker, rank, count, port, folder, function, arguments) for rank in range(count)]
        for process in started:
            process.join(120)
            process.kill()
        assert [process.exitcode for process in started] == [0] * count
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(count)]


def _worker(rank: int, count: int, port: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    result = function(setup_processes("cpu"), *arguments)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(result))
