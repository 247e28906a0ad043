"""The answer of a guard: an error in OpenAI's form, written straight to ASGI because no route was reached."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


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
