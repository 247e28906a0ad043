"""A stranger's URL reaches public addresses only, by whatever name, form or redirect it says otherwise."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

import pytest

from llada_uni.errors import UserError
from llada_uni.serving.http.fetch import Address, Reach, check_url, fetch, is_public, resolve

LOOPBACK = ipaddress.ip_address("127.0.0.1")
OUTSIDE = ipaddress.ip_address("93.184.215.14")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

INSIDE = [
    *["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
    *["169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1"],
    *["224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1", "203.0.113.7"],
    *["::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1", "3fff::1"],
    *["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"],
    *["2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "fec0::1"],
]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_that_are_not_outside(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "1.1.1.1", "2606:2800:21f:cb07::1", "2a00:1450::1"])
def test_public_addresses(address):
    assert is_public(ipaddress.ip_address(address))


LOCAL_FORMS = [
    *["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0"],
    *["localhost", "LOCALHOST", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:a00:1]"],
    *["169.254.169.254", "2852039166", "0xa9fea9fe", "[fe80::1%25lo]", "[64:ff9b::a9fe:a9fe]", "10.1", "192.168.257"],
]


@pytest.mark.parametrize("host", LOCAL_FORMS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_spelling_of_an_inner_address_is_refused(scheme, host):
    """By the system's own resolver, so what is checked is what would be connected to."""
    with pytest.raises(UserError, match="has no public address"):
        asyncio.run(fetch(f"{scheme}://{host}/a.png", 1000))


def test_names_that_do_not_exist_get_the_same_answer():
    async def nowhere(host: str, port: int) -> list[Address]:
        return []

    with pytest.raises(UserError, match="has no public address"):
        asyncio.run(fetch("http://nowhere.example/", 1000, Reach(resolve=nowhere)))


@pytest.mark.parametrize(
    "url",
    [
        "http://user:password@example.com/",
        "http://user@example.com/",
        "http://example.com:22/",
        "http://example.com:6379/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http:///a.png",
        "http://",
        "//example.com/a.png",
        "ftp://example.com/",
        "file:///etc/passwd",
        "unix:/var/run/docker.sock",
        "http://exa mple.com/",
        "http://example.com/\r\nHost: inner",
        "http://example.com/\tx",
        "http://ⓔxample.com/",
        "http://127。0。0。1/",
        "http://[::1/",
        "http://example.com/" + "a" * 3000,
    ],
)
def test_urls_that_are_not_plain_are_refused(url):
    with pytest.raises(UserError) as caught:
        check_url(url, {80, 443})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert "password" not in str(caught.value).replace("name or password", "")


def run_with_server(handler: Handler, scenario: Callable[[int], Awaitable[None]]) -> None:
    """Runs `scenario(port)` beside a server on a free port of this machine."""

    async def both() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            await scenario(server.sockets[0].getsockname()[1])

    asyncio.run(both())


def answering(*parts: bytes, seen: list[bytes] | None = None) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(4096)
        if seen is not None:
            seen.append(request)
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()

    return handler


def local(port: int, resolved: Callable[[str], list[Address]] | None = None, **options) -> Reach:
    """A reach in which this machine stands for the outside; all else stays refused."""

    async def to_loopback(host: str, _port: int) -> list[Address]:
        return resolved(host) if resolved else [LOOPBACK]

    return Reach(ports=frozenset({port}), resolve=to_loopback, is_allowed=LOOPBACK.__eq__, **options)


def body(data: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data


def test_a_picture_comes_and_the_server_is_asked_by_name():
    seen: list[bytes] = []

    async def scenario(port: int) -> None:
        url = f"http://pictures.example:{port}/a.png?b=c#d"
        assert await fetch(url, 1000, local(port)) == b"pixels"
        request = seen[0].decode()
        assert request.startswith("GET /a.png?b=c HTTP/1.1\r\n")
        assert f"host: pictures.example:{port}\r\n" in request.lower()
        assert "cookie" not in request.lower() and "authorization" not in request.lower()

    run_with_server(answering(body(b"pixels"), seen=seen), scenario)


def test_tls_asks_for_the_name_of_the_url():
    """The name stands in the first message of TLS; it is what the certificate must then be for."""
    seen: list[bytes] = []

    async def scenario(port: int) -> None:
        with pytest.raises(UserError, match="cannot be reached"):
            await fetch(f"https://pictures.example:{port}/a.png", 1000, local(port))
        assert b"pictures.example" in seen[0]

    run_with_server(answering(b"no TLS here", seen=seen), scenario)


def test_the_name_is_looked_up_once_and_that_answer_is_used():
    """DNS rebinding: the second answer would be another address, and is never asked for."""
    answers = [[LOOPBACK], [OUTSIDE]]

    async def scenario(port: int) -> None:
        reach = local(port, lambda host: answers.pop(0))
        assert await fetch(f"http://rebind.example:{port}/", 1000, reach) == b"pixels"
        assert len(answers) == 1

    run_with_server(answering(body(b"pixels")), scenario)


def test_one_inner_address_among_public_ones_is_enough_to_refuse():
    connected: list[bytes] = []

    async def scenario(port: int) -> None:
        async def mixed(host: str, _port: int) -> list[Address]:
            return [OUTSIDE, LOOPBACK]

        with pytest.raises(UserError, match="no public address"):
            await fetch(f"http://mixed.example:{port}/", 1000, Reach(ports=frozenset({port}), resolve=mixed))
        assert not connected

    run_with_server(answering(body(b"inner"), seen=connected), scenario)


def test_the_next_address_is_tried_when_one_is_dead():
    async def scenario(port: int) -> None:
        dead = ipaddress.ip_address("127.0.0.99")  # nothing listens there

        async def two(host: str, _port: int) -> list[Address]:
            return [dead, LOOPBACK]

        reach = Reach(ports=frozenset({port}), resolve=two, is_allowed=lambda address: True)
        assert await fetch(f"http://two.example:{port}/", 1000, reach) == b"pixels"

    run_with_server(answering(body(b"pixels")), scenario)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://inner.example:{port}/", "//inner.example:{port}/x"])
def test_redirects_are_checked_again(status, target):
    seen: list[bytes] = []

    async def scenario(port: int) -> None:
        parts[0] = parts[0].replace(b"PORT", str(port).encode())
        reach = local(port, lambda host: [ipaddress.ip_address("10.0.0.1")] if host == "inner.example" else [LOOPBACK])
        with pytest.raises(UserError, match="no public address"):
            await fetch(f"http://pictures.example:{port}/", 1000, reach)
        assert len(seen) == 1

    location = target.replace("{port}", "PORT").encode()
    parts = [b"HTTP/1.1 %d Moved\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % (status, location)]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(*parts, seen=seen)(reader, writer)

    run_with_server(handler, scenario)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a/", "http://pictures.example:22/", "", "http://a b/"])
def test_redirects_may_not_leave_http(target):
    async def scenario(port: int) -> None:
        with pytest.raises(UserError) as caught:
            await fetch(f"http://pictures.example:{port}/", 1000, local(port))
        assert "passwd" not in str(caught.value)

    answer = b"HTTP/1.1 302 Moved\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % target.encode()
    run_with_server(answering(answer), scenario)


def test_redirects_end():
    seen: list[bytes] = []

    async def scenario(port: int) -> None:
        with pytest.raises(UserError, match="more than 3 times"):
            await fetch(f"http://pictures.example:{port}/", 1000, local(port))
        assert len(seen) == 4

    run_with_server(answering(b"HTTP/1.1 302 Moved\r\nContent-Length: 0\r\nLocation: /again\r\n\r\n", seen=seen), scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + bytes(1001),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + bytes(1000) + b"\r\n1\r\n\0\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000),
    ],
)
def test_long_bodies_are_refused(answer):
    async def scenario(port: int) -> None:
        with pytest.raises(UserError, match=r"too large; allowed: at most 1000 bytes"):
            await fetch(f"http://pictures.example:{port}/", 1000, local(port))

    run_with_server(answering(answer), scenario)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "answered 500"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000, "does not speak HTTP"),
        (b"", "does not speak HTTP"),
    ],
)
def test_other_answers_are_told_in_a_line(answer, words):
    async def scenario(port: int) -> None:
        with pytest.raises(UserError, match=words) as caught:
            await fetch(f"http://pictures.example:{port}/", 1000, local(port))
        assert "\n" not in str(caught.value)

    run_with_server(answering(answer), scenario)


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"])
def test_slow_servers_are_left_after_the_time_for_all(first):
    """A byte every now and then, of the headers or of the body, keeps a connection alive; the limit is on the whole."""
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(first)
        while not (reader.at_eof() or writer.is_closing()):  # hung up, or cut off
            writer.write(b"x")
            await asyncio.sleep(0.02)
        gone.set()
        writer.close()

    async def scenario(port: int) -> None:
        with pytest.raises(UserError, match=r"more than 0.3 s"):
            await fetch(f"http://pictures.example:{port}/", 1000, local(port, seconds=0.3))
        await asyncio.wait_for(gone.wait(), 10)

    run_with_server(handler, scenario)


def test_the_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    test_a_picture_comes_and_the_server_is_asked_by_name()


def test_the_resolver_of_the_system_reads_numbers():
    assert asyncio.run(resolve("2130706433", 80)) == [LOOPBACK]
    assert asyncio.run(resolve("no such host at all", 80)) == []
