"""What stands before every route: who may ask, how often, how much; and what no answer may carry.

An ASGI request, outermost first -> a name for it (`trace.py`) -> headers for browsers on every answer -> errors without
their details -> pages of other sites turned away -> the API key -> the rate limit -> the body's size
(serving/http/body_limit.py) -> the app. `install_guards` puts them in this order. Middlewares that are added later
stand before all of these.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llada_uni.serving.http.body_limit import App, BodyLimit, Message, Receive, Scope, Send, header, refuse
from llada_uni.serving.http.trace import Traced

if TYPE_CHECKING:
    from fastapi import FastAPI

    from llada_uni.serving.http.options import ServerOptions
    from llada_uni.serving.http.quota import Quotas
    from llada_uni.serving.scheduler.limits import Limits

log = logging.getLogger(__name__)

# Without a key one may see that the server lives, and load the page that then asks for a key.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/favicon.ico"})
OPEN_FOLDER = "/studio/"
MAX_CALLERS = 10_000  # more would let strangers fill the memory with made-up addresses

# The page loads nothing from elsewhere, runs no inline script, and cannot be framed.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' data: blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def install_guards(app: FastAPI, options: ServerOptions, limits: Limits, quotas: Quotas | None = None) -> None:
    """Adds all guards to the app. Routes find who asks in `request.state.owner`: a key's number or an address."""
    app.add_middleware(BodyLimit, max_bytes=limits.max_body)  # the last one added is the outermost
    app.add_middleware(Gate, keys=options.api_keys, rate=limits.rate, quotas=quotas)
    if not options.api_keys:
        app.add_middleware(OwnPagesOnly, origins=options.cors_origins)
    app.add_middleware(NoDetails)
    app.add_middleware(HeadAsGet)
    app.add_middleware(BrowserHeaders)
    app.add_middleware(Traced)


class BrowserHeaders:
    """Adds the headers above to every answer."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message.get("headers", ())}
                added = [(name, value) for name, value in HEADERS if name not in own]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self.app(scope, receive, with_headers)


class HeadAsGet:
    """HEAD is answered as GET would be, without the body: probes and link checkers ask so. FastAPI's routes refuse it."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def bare(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, bare)


class NoDetails:
    """An exception nobody expected becomes a plain 500; its traceback goes to the log alone."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http" or started:  # the server then cuts the connection: the answer is not whole
                raise
            log.exception("a request failed")
            await refuse(send, 500, "the server failed on this request", "server_error")


class OwnPagesOnly:
    """Without API keys: other sites' pages, open in a browser that reaches this server, may not use it.

    A browser names the page's site in `Origin`. It must be this server, under a name that no stranger can point here
    (an address or localhost), or one of `origins`. Programs send no `Origin` and are not concerned.
    """

    def __init__(self, app: App, origins: Sequence[str]) -> None:
        self.app, self.origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, b"origin") if scope["type"] == "http" else None
        if origin is None or self._is_ours(origin.decode("latin-1"), scope):
            return await self.app(scope, receive, send)
        message = "pages of this site may not use this server; allow the site as an origin, or use an API key"
        await refuse(send, 403, message, "invalid_request_error", "origin_not_allowed")

    def _is_ours(self, origin: str, scope: Scope) -> bool:
        if origin in self.origins or "*" in self.origins:
            return True
        host = (header(scope, b"host") or b"").decode("latin-1")
        try:
            site = urlsplit(origin)
            return site.netloc == host and _is_unforgeable(site.hostname or "")
        except ValueError:
            return False


def _is_unforgeable(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Gate:
    """The API key (`Authorization: Bearer KEY`) and the rate limit.

    `rate`: requests a minute for each key, or for each address where there are no keys; tries with a wrong key are
    counted by address. The rate stands for what needs a key, or would need one.
    """

    def __init__(self, app: App, keys: Sequence[str], rate: float | None, quotas: Quotas | None = None) -> None:
        self.app, self._quotas = app, quotas
        self._digests = [_digest(key.encode()) for key in keys]
        self._rate = None if rate is None else RateLimit(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope):
            return await self.app(scope, receive, send)
        key = self._key_of(scope)
        owner = key or _address(scope)
        wait = None if self._rate is None else self._rate.wait(owner)
        if wait is not None:
            message = f"too many requests; try again in {math.ceil(wait)} s"
            assert self._rate is not None, "it made the caller wait"
            after = [("retry-after", str(math.ceil(wait))), *self._rate.headers(owner)]
            return await refuse(send, 429, message, "rate_limit_error", "rate_limit_exceeded", after)
        if self._digests and key is None:
            message = "an API key is needed, as the header 'Authorization: Bearer KEY'; the one given is missing or wrong"
            scheme = [("www-authenticate", "Bearer")]
            return await refuse(send, 401, message, "authentication_error", "invalid_api_key", scheme)
        if self._quotas is not None and scope["method"] == "POST" and (used_up := self._quotas.refusal(owner)) is not None:
            message = f"this key has used up its share of {used_up[0]}; it has a new one at midnight, UTC"
            after = [("retry-after", str(used_up[1]))]
            return await refuse(send, 429, message, "insufficient_quota", "insufficient_quota", after)
        scope.setdefault("state", {})["owner"] = owner
        await self.app(scope, receive, send if self._rate is None else self._telling(send, self._rate.headers(owner)))

    @staticmethod
    def _telling(send: Send, lines: list[tuple[str, str]]) -> Send:
        """Adds headers to the answer."""

        async def with_lines(message: Message) -> None:
            if message["type"] == "http.response.start":
                raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
                message = {**message, "headers": [*message.get("headers", ()), *raw]}
            await send(message)

        return with_lines

    def _key_of(self, scope: Scope) -> str | None:
        """Which of our keys was given ("key 1"), if any; the time it takes tells nothing of the keys."""
        scheme, _, given = (header(scope, b"authorization") or b"").partition(b" ")
        digest = _digest(given.strip())  # of one length, whatever was sent
        matches = [hmac.compare_digest(digest, own) for own in self._digests]  # all of them, always
        return f"key {1 + matches.index(True)}" if any(matches) and scheme.lower() == b"bearer" else None


class RateLimit:
    """How many requests a minute each caller may make: a token bucket for each.

    A bucket holds one minute's requests and fills evenly, so a caller may use a minute's worth at once and then goes on at
    the rate. Not for several threads: the event loop asks.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._per_second, self._clock = max(1.0, per_minute), per_minute / 60, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller -> (requests left, when)

    def headers(self, caller: str) -> list[tuple[str, str]]:
        """OpenAI's headers about the limit: how many requests a minute, how many are left, when all of them are there again."""
        left, _ = self._buckets.get(caller, (self._size, 0.0))
        full = (self._size - left) / self._per_second
        return [
            ("x-ratelimit-limit-requests", str(math.floor(self._size))),
            ("x-ratelimit-remaining-requests", str(math.floor(left))),
            ("x-ratelimit-reset-requests", f"{full:.3f}s"),
        ]

    def wait(self, caller: str) -> float | None:
        """Counts one request of `caller`; the seconds until there is room for it, None when it may go on."""
        now = self._clock()
        left, then = self._buckets.pop(caller, (self._size, now))
        left = min(self._size, left + (now - then) * self._per_second)
        allowed = left >= 1
        self._buckets[caller] = (left - allowed, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)  # the one heard of longest ago has the fullest bucket
        return None if allowed else (1 - left) / self._per_second


def is_open(scope: dict[str, Any] | Scope) -> bool:
    """Whether a request needs no key: signs of life, the page, and a browser's question before a real request."""
    path = scope["path"]
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER) or scope["method"] == "OPTIONS"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _address(scope: Scope) -> str:
    """Where a request comes from; of IPv6 the /64, as one household or machine has all of it."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address.ipv4_mapped or address) if address.version == 6 else host
