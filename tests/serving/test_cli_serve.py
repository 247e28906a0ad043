"""`llada-uni serve` as a process: what it prints, how it ends, what it says of mistakes."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from llada_uni.cli import main
from llada_uni.model import UniModel
from llada_uni.serving.http.app import create_app
from llada_uni.serving.scheduler.service import Service
from llada_uni.serving.server import DrainingServer, open_socket
from tests.serving.servers import PATIENCE, error_of, events_of, wait_for
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("serve") / "tiny", golden)


class Served:
    """A server process; lines: what it has printed."""

    def __init__(self, *arguments) -> None:
        command = [sys.executable, "-m", "llada_uni.cli", "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        wait_for(lambda: self.address() or self.process.poll() is not None, "the address")
        self.base = self.address()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def address(self) -> str | None:
        found = re.search(r"http://127.0.0.1:\d+", "\n".join(self.lines))
        return found and found[0]

    def get(self, path) -> httpx.Response:
        return httpx.get(self.base + path, timeout=PATIENCE)

    def wait_ready(self) -> None:
        wait_for(lambda: self.answers("/ready"), "the model")

    def answers(self, path) -> bool:
        try:
            return self.get(path).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def served(*arguments):
    server = Served(*arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_a_server_from_start_to_end(tiny):
    with served(tiny, "--name", "small", "--grace", "30") as server:
        wait_for(lambda: server.answers("/health"), "signs of life")
        server.wait_ready()
        wait_for(lambda: "ready" in server.lines, "the line that says so")
        printed = "\n".join(server.lines)
        assert f"{server.base}/v1" in printed and "small" in printed and "32 requests at a time" in printed
        body = re.search(r"-d '(.*)'", printed)[1]
        headers = {"content-type": "application/json"}
        answer = httpx.post(f"{server.base}/v1/images/generations", content=body, headers=headers, timeout=PATIENCE)
        assert answer.status_code == 200 and answer.json()["model"] == "small"
        _drain_with_a_stream_under_way(server)
        assert server.process.wait(PATIENCE) == 0
        assert len(server.lines) == printed.count("\n") + 1, "nothing is logged for requests that went well"


def _drain_with_a_stream_under_way(server):
    """SIGTERM after the first event of a long answer: it is finished, and who comes meanwhile is refused."""
    body = {"prompt": "a cat", "stream": True, "progress": True, "decoder": "base", "decoder_steps": 600, "n": 2}
    with httpx.stream("POST", f"{server.base}/v1/images/generations", json=body, timeout=PATIENCE) as response:
        arriving = response.iter_text()
        text = next(arriving)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not server.answers("/ready"), "the drain")
        refused = httpx.post(f"{server.base}/v1/images/generations", json={"prompt": "a dog"}, timeout=PATIENCE)
        assert refused.status_code == 503 and "stopping" in error_of(refused)["message"]
        text += "".join(arriving)
    assert [name for name, _ in events_of(text)].count("image_generation.completed") == 2


@pytest.mark.parametrize(("grace", "signals"), [(0.0, 1), (3600.0, 2)], ids=["grace-is-over", "second-signal"])
def test_what_cannot_be_finished_is_ended_with_503(tiny, grace, signals):
    service = Service(UniModel.from_pretrained(tiny, "cpu"))
    service.start()
    config = uvicorn.Config(create_app(service), log_level="warning", lifespan="off", ws="none")
    server = DrainingServer(config, service, grace, lambda: None)
    with open_socket("127.0.0.1", 0) as listener, ThreadPoolExecutor(1) as client:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        wait_for(lambda: service.ready and server.started, "the server")
        body = {"prompt": "a cat", "decoder": "base", "decoder_steps": 1000, "n": 8}
        asked = client.submit(httpx.post, f"{base}/v1/images/generations", json=body, timeout=PATIENCE)
        wait_for(lambda: b"jobs_running 8.0" in service.metrics.render(), "the requests to run")
        for _ in range(signals):
            server.handle_exit(signal.SIGTERM, None)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if signals == 1:
            assert asked.result().status_code == 503 and "stopp" in error_of(asked.result())["message"]
        else:
            assert asked.exception() is not None or asked.result().status_code == 503


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "no model directory"),
        (["world", "--model", "world"], "given twice"),
        (["--max-batch", "0"], "max_batch is 0"),
        (["--timeout", "0"], "timeout is 0"),
        (["--api-key", " "], "API key is blank"),
        (["--host", "999.1.1.1"], "cannot listen on 999.1.1.1"),
        (["--port", "70000"], "cannot listen on 127.0.0.1, port 70000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_one_line(arguments, sentence, capsys):
    if "--port" not in arguments:
        arguments = [*arguments, "--port", "0"]
    assert main(["serve", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said and said.count("\n") == 0


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    said = capsys.readouterr().err.strip()
    assert f"port {port} of 127.0.0.1 is in use" in said and said.count("\n") == 0


def test_help_teaches(capsys):
    assert main(["serve", "--help"]) == 0
    said = capsys.readouterr().out
    assert "/v1" in said and "LLADA_UNI_API_KEY" in said and "Example" in said
