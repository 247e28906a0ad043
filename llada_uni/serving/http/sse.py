"""Server-sent events: a stream of answers that stays alive, ends with its client, and tells of errors on the way.

An async generator of wire-ready messages -> HTTP. Its first message is awaited before the answer
begins, so that what fails at once is an ordinary HTTP error; later failures are an `error` event, and the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

PING_SECONDS = 15.0  # proxies cut connections on which nothing comes for half a minute or so
PING = KEEPALIVE_COMMENT
DONE = format_sse_event(data_str="[DONE]")
# For /openapi.json: what a route answers when its body says `stream`. The schema is that of one event.
_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}, "required": ["data"]}
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}

Messages = AsyncGenerator[bytes, None]


class Passing(bytes):
    """A message that the next one with the same `place` makes needless: the state of progress, an image on the way."""

    place: str


def message(event: BaseModel, name: str | None = None, place: str | None = None) -> bytes:
    """One event on the wire. place: of a `Passing` one."""
    data = format_sse_event(data_str=event.model_dump_json(), event=name)
    if place is None:
        return data
    passing = Passing(data)
    passing.place = place
    return passing


class EventStream(EventSourceResponse):
    """An answer of events: `first`, then the rest. What the rest raises becomes what `failed` says of it, and the end.

    However the answer ends, the generator behind it is closed before the request is over.
    """

    def __init__(self, first: bytes, rest: Messages, failed: Callable[[Exception], bytes]) -> None:
        # X-Accel-Buffering: proxies of the nginx kind would hold events back otherwise.
        super().__init__(self._all(first, failed), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._rest):
            await super().__call__(scope, receive, send)

    async def _all(self, first: bytes, failed: Callable[[Exception], bytes]) -> Messages:
        yield first
        try:
            async for item in self._rest:
                yield item
        except Exception as error:
            yield failed(error)
