"""The numbers of a service, beside those of its process, also at a port of their own."""

from __future__ import annotations

import socket
import sys
import urllib.request

import pytest

from llada_uni.errors import UserError
from llada_uni.serving.metrics import Metrics


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells such numbers on Linux alone")
def test_numbers_of_the_process_are_there():
    text = Metrics().render().decode()
    assert "process_resident_memory_bytes " in text and "process_cpu_seconds_total " in text


def test_a_port_of_its_own():
    metrics, port = Metrics(), free_port()
    metrics.listen("127.0.0.1", port)
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    assert "llada_uni_jobs_running" in text
    with pytest.raises(UserError, match=f"port {port}, for metrics"):
        Metrics().listen("127.0.0.1", port)
