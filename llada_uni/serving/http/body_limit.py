"""No request body longer, or slower, than the server allows; nor too many at a time.

ASGI messages of a request body are counted as they come in, so that a missing or wrong `Content-Length` does not matter.
They go to the app; a body that breaks a limit is answered here, whatever the app makes of it: 413 (too long), 408 (too
slow) or 429 (too much of all requests together). `refuse` writes such an answer, in OpenAI's form, for every guard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

AT_A_TIME = 16  # bodies of the largest size that may be under way
BODY_SECONDS = 60.0  # for a whole body; a client that sends a byte now and then would hold its place for ever


async def refuse(
    send: Send, status: int, message: str, kind: str, code: str | None = None, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """Sends {"error": {"message", "type", "param", "code"}} with the status; nothing may have been sent before."""
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
    lines = [("content-type", "application/json"), ("content-length", str(len(body))), *headers]
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The last value of a request header (lower-case name), or None."""
    return dict(scope["headers"]).get(name)


class _Refused(Exception):
    """The body breaks a limit; the request is answered here, not by the app."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyLimit:
    """ASGI middleware. `max_bytes` of a body; `seconds` for receiving it. `held`: bytes of all bodies under way."""

    def __init__(self, app: App, max_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        stated = header(scope, b"content-length") or b""
        if stated and header(scope, b"transfer-encoding"):  # programs differ in which of the two they believe
            return await self._refuse(send, _Refused(400, "a request has Content-Length or Transfer-Encoding, not both"))
        if stated.isdigit() and int(stated[:20]) > self.max_bytes:
            return await self._refuse(send, self._too_long())
        body = _CountedBody(self, receive, send)
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if body.refused is None:
                raise
        finally:
            self.held -= body.bytes
        if body.refused is not None and not body.started:
            await self._refuse(send, body.refused)

    def _too_long(self) -> _Refused:
        return _Refused(413, f"the request body is too large; allowed: at most {self.max_bytes} bytes")

    def count(self, more: int, so_far: int) -> None:
        """Counts bytes of one body. Raises _Refused when it, or all bodies together, are too large."""
        self.held += more
        if so_far + more > self.max_bytes:
            raise self._too_long()
        if self.held > AT_A_TIME * self.max_bytes:
            raise _Refused(429, "the bodies of other requests take all memory set aside for them; try again later")

    @staticmethod
    async def _refuse(send: Send, refused: _Refused) -> None:
        # The rest of the body is not read, so the connection cannot be used again.
        await refuse(send, refused.status, str(refused), "invalid_request_error", None, [("connection", "close")])


class _CountedBody:
    """One request's body on its way to the app."""

    def __init__(self, limit: BodyLimit, receive: Receive, send: Send) -> None:
        self._limit, self._receive, self._send = limit, receive, send
        self.bytes, self._whole = 0, False
        self._deadline = asyncio.get_running_loop().time() + limit.seconds
        self.refused: _Refused | None = None
        self.started = False

    async def receive(self) -> Message:
        if self.refused is not None:
            raise self.refused
        if self._whole:  # what still comes is the client's leaving
            return await self._receive()
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except asyncio.TimeoutError:
            self.refused = _Refused(408, f"the request body took more than {self._limit.seconds:g} s")
            raise self.refused from None
        size, before = len(message.get("body", b"")), self.bytes
        self.bytes += size
        self._whole = not message.get("more_body", False)
        try:
            self._limit.count(size, before)
        except _Refused as refused:
            self.refused = refused
            raise
        return message

    async def send(self, message: Message) -> None:
        """Passes answers on; one that the app made out of our refusal is dropped."""
        if self.refused is not None and not self.started:
            return
        self.started = True
        await self._send(message)
