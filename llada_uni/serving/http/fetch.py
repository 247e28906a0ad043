"""Getting a picture that a stranger's URL names, without becoming their arm into this network.

URL -> checked (scheme, port, no credentials) -> host resolved once -> every address checked
to be public -> connection to that very address, so a second answer of the name server cannot change it -> TLS
and `Host` with the URL's own name -> at most so many bytes in so many seconds. Each redirect goes the same way.
Proxies of the environment are not used: behind one, this program could not know where a connection ends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from llada_uni.errors import UserError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]

MAX_URL = 2048  # characters
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Blocks that lead back inside: IPv4 wrapped in IPv6, a cloud's host service, and one that Python before 3.11.10 takes
# for public.
_NOT_OUTSIDE = tuple(
    ipaddress.ip_network(block)
    for block in ("2001::/23", "2002::/16", "3fff::/20", "192.88.99.0/24", "168.63.129.16/32", "192.0.0.0/24")
)
# Name look-ups cannot be cancelled. In threads of their own, slow ones hold up only each other.
_LOOKUPS = ThreadPoolExecutor(4, thread_name_prefix="look-up")
_REDIRECTS = (301, 302, 303, 307, 308)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet: not private, loopback, link-local (where clouds keep
    their metadata), shared, multicast, reserved, nor IPv4 wrapped in IPv6 (RFC 6890 and its registries)."""
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in block for block in _NOT_OUTSIDE if block.version == address.version)


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host by the system's resolver, which also reads forms such as 0x7f.1 or 2130706433."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(_LOOKUPS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Reach:
    """How far a fetch may go. `seconds`: for all of it, redirects and look-ups included."""

    ports: frozenset[int] = frozenset({80, 443})
    seconds: float = 10.0
    redirects: int = 3
    resolve: Resolve = resolve
    is_allowed: Callable[[Address], bool] = is_public
    ssl_context: ssl.SSLContext | None = None  # None: the certificates of the system


class _CheckedNetwork(httpcore.AnyIOBackend):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        addresses = await self._reach.resolve(host, port)
        if not addresses or not all(self._reach.is_allowed(address) for address in addresses):
            # One message for both: the answer must not tell which names exist inside.
            raise UserError("the host of the picture's URL has no public address")
        for address in addresses[:-1]:
            try:
                return await super().connect_tcp(str(address), port, *args, **options)
            except httpcore.ConnectError:
                continue
        return await super().connect_tcp(str(addresses[-1]), port, *args, **options)


async def fetch(url: str, max_bytes: int, reach: Reach | None = None) -> bytes:
    """The body that an http(s) URL gives, at most `max_bytes` of it.

    UserError (one line) for other URLs, for hosts without a public address, for answers other than 200, for
    bodies too long and for servers too slow.
    """
    reach = reach or Reach()
    try:
        return await asyncio.wait_for(_follow(url, max_bytes, reach), reach.seconds)
    except (asyncio.TimeoutError, httpcore.TimeoutException) as error:
        raise UserError(f"the server of the picture's URL took more than {reach.seconds:g} s") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise UserError("the server of the picture's URL cannot be reached or does not speak HTTP") from error


HEADERS: Mapping[bytes | str, bytes | str] = {
    "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "llada-uni",
}  # fmt: skip


async def _follow(url: str, max_bytes: int, reach: Reach) -> bytes:
    for _ in range(1 + reach.redirects):
        check_url(url, reach.ports)
        # A pool for each hop: no connection is used again, so none escapes the check.
        async with httpcore.AsyncConnectionPool(reach.ssl_context, network_backend=_CheckedNetwork(reach)) as pool:
            async with pool.stream("GET", url, headers=HEADERS) as response:
                if response.status == 200:
                    return await _body(response, max_bytes)
                if response.status not in _REDIRECTS:
                    raise UserError(f"the server of the picture's URL answered {response.status}")
                url = urljoin(url, _header(response.headers, b"location"))
    raise UserError(f"the picture's URL leads on more than {reach.redirects} times")


def check_url(url: str, ports: Iterable[int]) -> None:
    """UserError unless `url` is plain http(s): printable ASCII, a host, no credentials, an allowed port."""
    if len(url) > MAX_URL or not all("!" <= letter <= "~" for letter in url):
        raise UserError(f"a picture's URL has at most {MAX_URL} characters, printable ASCII only (others as %..)")
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError as error:
        raise UserError("the picture's URL is malformed") from error
    if port is None or not parts.hostname:
        raise UserError("a picture's URL begins with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise UserError("a picture's URL may not carry a name or password")
    if port not in ports:
        raise UserError(f"a picture's URL may use the ports {', '.join(map(str, sorted(ports)))} only")


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), "")


async def _body(response: httpcore.Response, max_bytes: int) -> bytes:
    stated = _header(response.headers, b"content-length")
    too_long = UserError(f"the picture behind the URL is too large; allowed: at most {max_bytes} bytes")
    if stated.isdecimal() and int(stated) > max_bytes:
        raise too_long
    body = bytearray()
    async for piece in response.aiter_stream():
        body += piece
        if len(body) > max_bytes:
            raise too_long
    return bytes(body)
