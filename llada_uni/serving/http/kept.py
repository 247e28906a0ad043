"""Streams that outlive their connection: a client that names its stream can leave, come back and read it again.

Messages of a route -> a task of the server's own, which notes them -> any number of readers, each from the beginning. A page
that is reloaded so finds its work again. What is kept is bounded: in bytes and number, for each stream and owner and for
all, in the time a stream runs without a reader, and in the time it stays after its end. Where there is no room nothing is
refused: the stream then lives as long as its connection, as without a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

from llada_uni.serving.errors import Failed
from llada_uni.serving.http import sse
from llada_uni.serving.http.protocol.errors import ApiError

HEADER = "x-llada-stream"  # names the stream of a request; the client draws the name
NAME = r"[A-Za-z0-9_-]{16,64}"  # long enough that nobody guesses it
MOST_OF_OWNER, MOST = 16, 64  # streams
MOST_BYTES, MOST_BYTES_OF_ALL = 64 * 2**20, 256 * 2**20
ALONE_SECONDS = 120.0  # a stream that nobody reads is ended then; a page that is reloaded is back long before
AFTER_SECONDS = 600.0  # an ended stream that nobody has dropped is forgotten then


class KeptStream:
    """One stream. Belongs to the event loop that makes it. failed: what is sent of a failure after the first message."""

    def __init__(self, home: KeptStreams, owner: str, messages: sse.Messages, failed: Callable[[Exception], bytes]) -> None:
        self.owner, self.ended, self.bytes = owner, False, 0
        self._home, self.failed = home, failed
        self._said: list[bytes | None] = []  # None: nobody needs it any more
        self._newest: dict[str, int] = {}  # `Passing.place` -> where in _said it stands
        self._failure: Exception | None = None  # before the first message
        self._readers: dict[object, int] = {}  # how many of _said each has
        self._whole = True  # False once there was no room to keep it
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(messages))
        self._drop_after(ALONE_SECONDS)

    async def _run(self, messages: sse.Messages) -> None:
        try:
            async with contextlib.aclosing(messages):
                async for message in messages:
                    if message is sse.PING:
                        continue
                    self._say(message)
                    if not self._whole or not self._home.has_room(self):
                        await self._pass_on()
        except Exception as error:
            if self._said:
                self._say(self.failed(error))
            else:
                self._failure = error
        finally:
            self.ended = True
            self._drop_after(AFTER_SECONDS)
            self._tell()

    def _say(self, message: bytes) -> None:
        if isinstance(message, sse.Passing):
            self._forget(self._newest.get(message.place, len(self._said)))
            self._newest[message.place] = len(self._said)
        self._said.append(message)
        self.bytes += len(message)
        self._tell()

    def _forget(self, place: int) -> None:
        if place < len(self._said):
            self.bytes -= len(self._said[place] or b"")
            self._said[place] = None

    async def _pass_on(self) -> None:
        """Too much to keep: who reads gets all of it, at the reader's pace, and nobody can come back for it."""
        self._whole = False
        self._home.remove(self)
        while self.bytes:
            if not self._readers:
                raise Failed("the answer was too large to be kept, and nobody read it")
            for place in range(min(self._readers.values())):
                self._forget(place)
            if self.bytes:
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _drop_after(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.drop)

    async def read(self) -> sse.Messages:
        """What was said, without what newer messages took the place of, and what follows, to the end; pings between.

        Raises what the stream failed with before its first message.
        """
        me = object()
        self._readers[me] = 0
        if not self.ended:
            self._drop_after(None)
        try:
            while True:
                while self._readers[me] < len(self._said):
                    message = self._said[self._readers[me]]
                    if message is not None:
                        yield message
                    self._readers[me] += 1
                if self._failure is not None:
                    raise self._failure
                if self.ended:
                    return
                if not self._whole:
                    self._tell()
                try:
                    await asyncio.wait_for(self._changed.wait(), sse.PING_SECONDS)
                except asyncio.TimeoutError:
                    yield sse.PING
        finally:
            del self._readers[me]
            if not self._readers and not self.ended:
                self._drop_after(ALONE_SECONDS)
            self._tell()

    def drop(self) -> None:
        """Ends the work where it goes on, and forgets the stream."""
        self._drop_after(None)
        self._home.remove(self)
        self._task.cancel()


class KeptStreams:
    """The kept streams of a server. Names of different owners have nothing to do with each other."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], KeptStream] = {}  # the oldest first

    def keep(self, owner: str, name: str, messages: sse.Messages, failed: Callable[[Exception], bytes]) -> sse.Messages:
        """The messages, kept from now on; as they are where there is no room. ApiError for a wrong name, or one in use."""
        if not re.fullmatch(NAME, name):
            raise ApiError(400, f"the header {HEADER} must be 16 to 64 letters, digits, _ or -", HEADER)
        if (owner, name) in self._streams:
            raise ApiError(409, f"the header {HEADER} names a stream that there is already; draw a new name", HEADER)
        if not (self._has_place(MOST_OF_OWNER, owner) and self._has_place(MOST)):
            return messages
        stream = self._streams[owner, name] = KeptStream(self, owner, messages, failed)
        return stream.read()

    def find(self, owner: str, name: str) -> KeptStream:
        """ApiError 404 where there is none."""
        if (owner, name) not in self._streams:
            raise ApiError(404, "there is no such stream; it was dropped, or kept too long", "name", "stream_not_found")
        return self._streams[owner, name]

    def has_room(self, stream: KeptStream) -> bool:
        """Whether it may stay; ended streams make room for it, the oldest first."""
        while (full := sum(one.bytes for one in self._streams.values()) > MOST_BYTES_OF_ALL) and self._drop_an_ended():
            pass
        return stream.bytes <= MOST_BYTES and not full

    def _has_place(self, most: int, owner: str | None = None) -> bool:
        """Whether there is a place for one more, of an owner or of all; an ended stream makes it."""
        there = sum(owner in (None, one.owner) for one in self._streams.values())
        return there < most or self._drop_an_ended(owner)

    def _drop_an_ended(self, owner: str | None = None) -> bool:
        for stream in self._streams.values():
            if stream.ended and owner in (None, stream.owner):
                stream.drop()
                return True
        return False

    def remove(self, stream: KeptStream) -> None:
        """Nobody can find it any more."""
        self._streams = {key: one for key, one in self._streams.items() if one is not stream}

    def __len__(self) -> int:
        return len(self._streams)
