"""Clients that are slow to send a header are cut off; those that wait for their answer, or between two requests, are not."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import uvicorn

from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.http.patience import PatientProtocol
from tests.serving.servers import PATIENCE, ScriptedService, finished, wait_for

SECONDS = 0.5
BODY = b'{"messages": [{"role": "user", "content": "x"}]}'
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
    BODY
)


class Hasty(PatientProtocol):
    header_seconds = SECONDS


@pytest.fixture(scope="module")
def port():
    def slow(job):
        time.sleep(3 * SECONDS)
        job.emit(finished())

    app = create_app(ScriptedService(slow), ServerOptions())
    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off", ws="none", http=Hasty)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the server to listen")
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(PATIENCE)


def connected(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return client


def healthy(client):
    """Asks, and reads the whole answer."""
    client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    said = b""
    while not said.endswith(b"}"):
        said += client.recv(65536)
    return said.startswith(b"HTTP/1.1 200")


def all_of(client):
    """What comes until the server closes."""
    said = b""
    while piece := client.recv(65536):
        said += piece
    return said


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("said", [b"GET /he", b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_slow_headers_end_the_connection(port, said, before):
    with connected(port) as client:
        for _ in range(before):
            assert healthy(client)
        client.sendall(said)
        assert all_of(client) == b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def test_a_client_that_says_nothing_is_cut_off(port):
    with connected(port) as client:
        assert all_of(client).startswith(b"HTTP/1.1 408")


def test_an_answer_may_take_longer(port):
    with connected(port) as client:
        client.sendall(CHAT + BODY)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_connection_may_rest_between_two_requests(port):
    with connected(port) as client:
        for _ in range(2):
            assert healthy(client)
            time.sleep(2 * SECONDS)
