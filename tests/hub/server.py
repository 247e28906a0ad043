"""A small server that speaks the hub's protocol to the real client, and fails on request.

Models with branches and commits -> file lists, HEAD with ETag and commit, large files by redirect to another address on the
same server, ranges, tokens. `faults` make it misbehave; `log` holds every request with the bytes it was sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE = 4096  # bytes from which a file is kept as a large one, with a SHA-256 and behind a redirect
PIECE = 1 << 16


@dataclass
class Request:
    """One request: what was asked, and how many bytes of body went out."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    sent: int = 0


@dataclass
class Fault:
    """A way to fail. part: of the path that is hit; status: the answer (0: the body breaks off after `after` bytes, or, with
    `flip`, has one byte changed); times: how often (a large number: always); method: None is any; whole: requests without a
    range only.
    """

    part: str
    status: int = 0
    after: int = 0
    flip: int | None = None
    times: int = 1_000_000
    headers: dict[str, str] = field(default_factory=dict)
    method: str | None = None
    whole: bool = False


@dataclass
class Model:
    """Revisions of one model: branch -> commit, commit -> its files. token: who may read (None: everyone); gated: nobody."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False


def files_below(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


class Hub:
    """The server's state. url: its address, once it runs; rate: bytes a second of each body (None: as fast as it goes)."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.rate: float | None = None
        self.url = ""
        self._hashes: dict[tuple[Path, int, int], tuple[str, str]] = {}
        self.lock = threading.Lock()

    def put(self, id: str, folder: Path, branch: str = "main") -> str:
        """A new commit of the files below `folder`; its name."""
        model = self.models.setdefault(id, Model())
        files = files_below(folder)
        content = "".join(f"{name} {self.hashes(path)}" for name, path in files.items())
        commit = hashlib.sha1(content.encode()).hexdigest()
        model.commits[commit], model.branches[branch] = files, commit
        return commit

    def hashes(self, path: Path) -> tuple[str, str]:
        """SHA-256, and git's id, of a file."""
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            data = path.read_bytes()
            self._hashes[key] = (
                hashlib.sha256(data).hexdigest(),
                hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
            )
        return self._hashes[key]

    def fault(self, request: Request) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                hit = fault.part in request.path and not (fault.whole and request.range)
                if hit and fault.times > 0 and fault.method in (None, request.method):
                    fault.times -= 1
                    return fault
        return None

    def asked(self, part: str, method: str = "GET") -> list[Request]:
        return [request for request in self.log if part in request.path and request.method == method]

    def sent(self, part: str) -> int:
        """Bytes of body that went out for paths with `part` in them."""
        return sum(request.sent for request in self.asked(part))

    def clear(self) -> None:
        self.faults.clear()
        self.log.clear()
        self.rate = None


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            # A small buffer: what the log calls sent has nearly all been received.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)

        def log_message(self, *given: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            _answer(hub, self)

        def do_GET(self) -> None:
            _answer(hub, self)

    return Handler


def _answer(hub: Hub, to: BaseHTTPRequestHandler) -> None:
    path = to.path.split("?")[0]
    request = Request(to.command, path, to.headers.get("Range"), to.headers.get("Authorization"))
    hub.log.append(request)
    fault = hub.fault(request)
    if fault is not None and fault.status:
        return _send(to, request, fault.status, b"{}", fault.headers)
    found = re.fullmatch(r"/(?:api/models/)?([\w.-]+/[\w.-]+)/(?:(resolve|revision|cdn)/([^/]+))(?:/(.+))?", path)
    model = hub.models.get(found[1]) if found else None
    if model is None:
        return _send(to, request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
    if found[2] != "cdn":
        if model.gated:
            return _send(to, request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        if model.token is not None and request.authorization != f"Bearer {model.token}":
            wrong = {"X-Error-Message": "Invalid credentials in Authorization header"} if request.authorization else {}
            return _send(to, request, 401, b"{}", wrong or {"X-Error-Code": "RepoNotFound"})
    commit = model.branches.get(found[3], found[3])
    if commit not in model.commits:
        return _send(to, request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
    files = model.commits[commit]
    if found[2] == "revision":
        return _send(to, request, 200, json.dumps(_info(hub, found[1], commit, files)).encode(), {})
    if found[4] not in files:
        return _send(to, request, 404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
    file = files[found[4]]
    size, (sha256, blob) = file.stat().st_size, hub.hashes(file)
    large = size >= LARGE
    headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256 if large else blob}"', "Accept-Ranges": "bytes"}
    if large and found[2] == "resolve":
        there = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(size), "Location": path.replace("/resolve/", "/cdn/")}
        return _send(to, request, 302, b"", headers | there)
    return _send_file(hub, to, request, file, headers, fault)


def _info(hub: Hub, id: str, commit: str, files: dict[str, Path]) -> dict[str, Any]:
    siblings = []
    for name, path in files.items():
        size, (sha256, blob) = path.stat().st_size, hub.hashes(path)
        large = {"lfs": {"sha256": sha256, "size": size, "pointerSize": 130}} if size >= LARGE else {}
        siblings.append({"rfilename": name, "size": size, "blobId": blob, **large})
    return {"id": id, "modelId": id, "sha": commit, "private": False, "gated": False, "tags": [], "siblings": siblings}


def _send(to: BaseHTTPRequestHandler, request: Request, status: int, body: bytes, headers: dict[str, str]) -> None:
    to.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        to.send_header(name, value)
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(body)


def _send_file(
    hub: Hub, to: BaseHTTPRequestHandler, request: Request, file: Path, headers: dict[str, str], fault: Fault | None
) -> None:
    size = file.stat().st_size
    start, end = 0, size
    if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", request.range or ""):
        start, end = int(asked[1]), min(size, int(asked[2]) + 1) if asked[2] else size
    to.send_response(206 if asked else 200)
    more = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if asked else {}
    for name, value in {**headers, **more, "Content-Length": str(end - start)}.items():
        to.send_header(name, value)
    to.end_headers()
    if to.command == "HEAD":
        return
    began = time.monotonic()
    for piece in _pieces(file, start, end, fault):
        try:
            to.wfile.write(piece)
        except OSError:  # the client is gone
            break
        request.sent += len(piece)
        if hub.rate is not None:
            time.sleep(max(0.0, request.sent / hub.rate - (time.monotonic() - began)))
        if fault is not None and fault.flip is None and request.sent >= fault.after:
            break
    if request.sent < end - start:
        to.close_connection = True
        to.connection.close()


def _pieces(file: Path, start: int, end: int, fault: Fault | None) -> Iterator[bytes]:
    with open(file, "rb") as source:
        source.seek(start)
        at = start
        limit = end if fault is None or fault.flip is not None else min(end, start + fault.after)
        while at < limit:
            piece = bytearray(source.read(min(PIECE, limit - at)))
            if fault is not None and fault.flip is not None and at <= fault.flip < at + len(piece):
                piece[fault.flip - at] ^= 1
            yield bytes(piece)
            at += len(piece)


