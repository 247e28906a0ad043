"""The guards before every route, on a little app of their own: keys, rates, sizes, headers, silence about errors."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.responses import PlainTextResponse, StreamingResponse

from llada_uni.serving.http import guard
from llada_uni.serving.http.body_limit import BodyLimit
from llada_uni.serving.http.guard import RateLimit, install_guards
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.scheduler.limits import Limits

KEYS = ("first-key", "second-key-that-is-longer")


def make_app(options: ServerOptions | None = None, limits: Limits | None = None) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/json")
    async def take(body: dict[str, Any], request: Request) -> dict[str, Any]:
        return {"owner": request.state.owner, "keys": len(body)}

    @app.post("/v1/form")
    async def form(image: UploadFile, prompt: str = Form()) -> dict[str, int]:
        return {"bytes": len(await image.read())}

    @app.get("/v1/broken")
    async def broken() -> None:
        raise RuntimeError("secret at /home/someone/models/world")

    @app.get("/v1/broken-later")
    async def broken_later() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "first"
            raise RuntimeError("secret at /home/someone/models/world")

        return StreamingResponse(pieces())

    @app.get("/health")
    async def health() -> PlainTextResponse:
        return PlainTextResponse("ok", headers={"content-security-policy": "default-src 'self'"})

    @app.get("/studio/page.js")
    async def script() -> PlainTextResponse:
        return PlainTextResponse("1")

    install_guards(app, options or ServerOptions(), limits or Limits())
    return app


def ask(app: Any, scenario: Callable[[httpx.AsyncClient], Awaitable[Any]], **transport: Any) -> Any:
    async def run() -> Any:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app, **transport), base_url="http://127.0.0.1:8000")
        async with client:
            return await scenario(client)

    return asyncio.run(run())


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def is_error(answer: httpx.Response, status: int, kind: str) -> str:
    """The message of an error in OpenAI's form; everything else about it is checked."""
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == kind
    assert "\n" not in error["message"]
    return error["message"]


# --- keys ---


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_each_key_opens(key, scheme):
    app = make_app(ServerOptions(api_keys=KEYS))
    answer = ask(app, lambda client: client.post("/v1/json", json={}, headers={"authorization": f"{scheme} {key}"}))
    assert answer.json() == {"owner": f"key {1 + KEYS.index(key)}", "keys": 0}


WRONG = [
    None,
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Bearer first-key2",
    "Bearer first-ke",
    "Bearer FIRST-KEY",
    "Bearer first-key second-key-that-is-longer",
    "Basic first-key",
    "first-key",
    "Bearer " + "a" * 100_000,
    b"Bearer \xff\xfe",
    b"Bearer first-key\x00",
]


@pytest.mark.parametrize("value", WRONG)
def test_anything_else_is_401(value):
    headers = {} if value is None else {"authorization": value}
    app = make_app(ServerOptions(api_keys=KEYS))
    answer = ask(app, lambda client: client.post("/v1/json", json={}, headers=headers))
    message = is_error(answer, 401, "authentication_error")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "first" not in message and "second" not in message


@pytest.mark.parametrize(
    "path",
    ["/v1/nothing", "/metrics", "/openapi.json", "/docs", "/V1/json", "//v1/json", "/studio", "/health/", "/studio/../v1/json"],
)
def test_everything_not_named_open_is_closed(path):
    app = make_app(ServerOptions(api_keys=KEYS))

    async def scenario(client: httpx.AsyncClient) -> httpx.Response:
        request = client.build_request("GET", "http://127.0.0.1:8000")
        request.url = httpx.URL(scheme="http", host="127.0.0.1", port=8000, raw_path=path.encode())
        return await client.send(request)

    assert ask(app, scenario).status_code in (401, 404)
    if not path.startswith("/studio/"):
        assert ask(app, scenario).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/studio/page.js"])
def test_signs_of_life_and_the_page_are_open(path):
    assert ask(make_app(ServerOptions(api_keys=KEYS)), lambda client: client.get(path)).status_code == 200


def test_head_is_get_without_the_body():
    app = make_app(ServerOptions(api_keys=KEYS))
    got, asked = (ask(app, lambda client, m=method: client.request(m, "/health")) for method in ("GET", "HEAD"))
    assert asked.status_code == 200 and asked.content == b"" and got.content == b"ok"
    own = "x-request-id"
    assert [h for h in asked.headers.multi_items() if h[0] != own] == [h for h in got.headers.multi_items() if h[0] != own]
    assert ask(app, lambda client: client.head("/v1/nothing")).status_code == 401  # the same gate
    assert ask(make_app(), lambda client: client.head("/v1/json")).status_code == 405


def test_a_browsers_question_before_a_request_needs_no_key_and_gets_nothing():
    answer = ask(make_app(ServerOptions(api_keys=KEYS)), lambda client: client.options("/v1/json"))
    assert answer.status_code == 405


def test_keys_are_compared_in_constant_time(monkeypatch):
    """All keys, always, by compare_digest, on digests of one length: no early end, no length to learn."""
    compared: list[tuple[int, int]] = []

    def watched(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    compare = hmac.compare_digest
    monkeypatch.setattr("llada_uni.serving.http.guard.hmac.compare_digest", watched)
    app = make_app(ServerOptions(api_keys=KEYS))
    for key in ("first-key", "second-key-that-is-longer", "x", "", "a" * 500):
        compared.clear()
        ask(app, lambda client, key=key: client.post("/v1/json", json={}, headers=bearer(key)))
        assert compared == [(32, 32)] * len(KEYS)


def test_without_keys_the_server_is_open_and_owners_are_addresses():
    for host, owner in (
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ):
        answer = ask(make_app(), lambda client: client.post("/v1/json", json={}), client=(host, 1))
        assert answer.json()["owner"] == owner


# --- rates ---


def test_each_key_has_a_rate_of_its_own():
    app = make_app(ServerOptions(api_keys=KEYS), Limits(rate=3))

    async def scenario(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            assert (await client.post("/v1/json", json={}, headers=bearer(KEYS[0]))).status_code == 200
        refused = await client.post("/v1/json", json={}, headers=bearer(KEYS[0]))
        is_error(refused, 429, "rate_limit_error")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert (await client.post("/v1/json", json={}, headers=bearer(KEYS[1]))).status_code == 200
        assert (await client.get("/health")).status_code == 200, "signs of life are not counted"

    ask(app, scenario)


def test_guessing_keys_is_limited_by_address():
    app = make_app(ServerOptions(api_keys=KEYS), Limits(rate=3))

    async def scenario(client: httpx.AsyncClient) -> list[int]:
        guesses = [await client.post("/v1/json", json={}, headers=bearer(f"guess {n}")) for n in range(5)]
        own = await client.post("/v1/json", json={}, headers=bearer(KEYS[0]))
        return [answer.status_code for answer in (*guesses, own)]

    assert ask(app, scenario) == [401, 401, 401, 429, 429, 200]


def test_a_forwarded_address_is_not_believed():
    app = make_app(limits=Limits(rate=1))

    async def scenario(client: httpx.AsyncClient) -> list[int]:
        headers = [{"x-forwarded-for": f"203.0.113.{n}", "forwarded": f"for=203.0.113.{n}"} for n in range(3)]
        return [(await client.post("/v1/json", json={}, headers=one)).status_code for one in headers]

    assert ask(app, scenario) == [200, 429, 429]


# --- sizes ---

SMALL = Limits(max_body=1000)


def test_bodies_up_to_the_limit_pass():
    def exactly(count: int) -> bytes:
        return b'{"a": "' + b"b" * (count - 9) + b'"}'

    json_type = {"content-type": "application/json"}
    for count, status in ((1000, 200), (1001, 413)):
        answer = ask(make_app(limits=SMALL), lambda c, n=count: c.post("/v1/json", content=exactly(n), headers=json_type))
        assert answer.status_code == status


FORM_START = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("path", "kind", "start"),
    [
        ("/v1/json", "application/json", b'{"a": "'),
        ("/v1/form", "multipart/form-data; boundary=b", FORM_START),
        ("/v1/nothing", "application/json", b""),
    ],
)
def test_long_bodies_are_refused_unread(path, kind, start):
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        yield start
        for _ in range(10_000):
            read += 100
            yield b"x" * 100

    app = make_app(limits=SMALL)
    headers = {"content-type": kind, "content-length": "1000000"}
    stated = ask(app, lambda client: client.post(path, content=pieces(), headers=headers))
    is_error(stated, 413, "invalid_request_error")
    assert stated.headers["connection"] == "close"
    if path != "/v1/nothing":  # there nobody reads the body at all
        chunked = ask(app, lambda client: client.post(path, content=pieces(), headers={"content-type": kind}))
        assert "at most 1000 bytes" in is_error(chunked, 413, "invalid_request_error")
    assert read <= 3000


@pytest.mark.parametrize("length", ["1e3", "-5", "0x10", "9" * 5000, "", "1, 2", "²"])
def test_odd_content_lengths_change_nothing(length):
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 2000

    headers = {"content-type": "application/json", "content-length": length.encode("latin-1")}
    answer = ask(make_app(limits=SMALL), lambda c: c.post("/v1/json", content=pieces(), headers=headers))
    is_error(answer, 413, "invalid_request_error")


def test_slow_bodies_are_cut_off():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    sent: list[Any] = []

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def keep(message: Any) -> None:
        sent.append(message)

    asyncio.run(BodyLimit(app, 10**6, seconds=0.2)({"type": "http", "headers": []}, drip, keep))
    assert sent[0]["status"] == 408


# --- what answers carry ---


def test_unexpected_errors_say_nothing(caplog):
    with caplog.at_level(logging.ERROR):
        answer = ask(make_app(), lambda client: client.get("/v1/broken"))
    assert is_error(answer, 500, "server_error") == "the server failed on this request"
    assert "secret" in caplog.text, "the log has it"


def test_an_error_in_mid_stream_cuts_the_answer():
    answer = ask(make_app(), lambda client: client.get("/v1/broken-later"), raise_app_exceptions=False)
    assert answer.text == "first"


@pytest.mark.parametrize("path", ["/health", "/studio/page.js", "/v1/nothing", "/v1/broken", "/metrics"])
@pytest.mark.parametrize("keys", [(), KEYS])
def test_every_answer_has_the_headers_for_browsers(path, keys):
    answer = ask(make_app(ServerOptions(api_keys=keys)), lambda client: client.get(path))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    policy = answer.headers.get_list("content-security-policy")
    assert len(policy) == 1
    if path == "/health":
        assert policy == ["default-src 'self'"], "a route may set its own"
    else:
        assert "unsafe" not in policy[0] and "default-src 'none'" in policy[0]


# --- pages of other sites ---


def from_page(origin: str, host: str = "127.0.0.1:8000", **options: Any) -> int:
    headers = {"origin": origin, "host": host}
    app = make_app(ServerOptions(**options))
    return ask(app, lambda client: client.post("/v1/json", json={}, headers=headers)).status_code


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://192.168.1.5:8000", "192.168.1.5:8000"),
    ],
)
def test_the_servers_own_page_may_ask(origin, host):
    assert from_page(origin, host) == 200


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "127.0.0.1:8000"),
        ("http://127.0.0.1:9000", "127.0.0.1:8000"),
        ("http://evil.example:8000", "evil.example:8000"),  # its name server says 127.0.0.1 now
        ("http://localhost.evil.example:8000", "localhost.evil.example:8000"),
        ("null", "127.0.0.1:8000"),
        ("", "127.0.0.1:8000"),
        ("http://[", "["),
        ("http://user@127.0.0.1:8000", "127.0.0.1:8000"),
    ],
)
def test_without_keys_pages_of_other_sites_may_not(origin, host):
    assert from_page(origin, host) == 403


def test_named_origins_and_keys_let_pages_in():
    assert from_page("https://friend.example", cors_origins=("https://friend.example",)) == 200
    assert from_page("https://other.example", cors_origins=("https://friend.example",)) == 403
    assert from_page("https://other.example", cors_origins=("*",)) == 200
    assert from_page("https://other.example", api_keys=KEYS) == 401, "a key is asked for, which no other page has"


def test_bodies_of_all_requests_together_have_a_limit(monkeypatch):
    """More than so many large bodies at a time are told to wait, and nothing stays counted."""
    monkeypatch.setattr("llada_uni.serving.http.body_limit.AT_A_TIME", 2)
    received, go_on = asyncio.Event(), asyncio.Event()
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        received.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    limit = BodyLimit(app, 1000)

    async def one() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": bytes(900)}

        async def keep(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        await limit({"type": "http", "headers": []}, receive, keep)

    async def scenario() -> None:
        waiting = [asyncio.create_task(one()), asyncio.create_task(one())]
        await received.wait()
        await one()
        assert statuses == [429]
        go_on.set()
        await asyncio.gather(*waiting)

    asyncio.run(scenario())
    assert statuses == [429, 200, 200] and limit.held == 0


# --- token buckets: even filling, one for each caller, and no more of them than fit ---


def test_a_bucket_fills_evenly():
    now = [0.0]
    rate = RateLimit(3, clock=lambda: now[0])
    assert [rate.wait("a") for _ in range(4)] == [None, None, None, 20.0]
    assert rate.wait("b") is None, "callers have a bucket each"
    now[0] = 15
    assert rate.wait("a") == pytest.approx(5)
    now[0] = 20
    assert rate.wait("a") is None
    now[0] = 10_000
    assert [rate.wait("a") for _ in range(4)][:3] == [None] * 3


def test_less_than_one_a_minute():
    now = [0.0]
    rate = RateLimit(0.5, clock=lambda: now[0])
    assert [rate.wait("a"), rate.wait("a")] == [None, 120.0]


def test_made_up_callers_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(guard, "MAX_CALLERS", 50)
    rate = RateLimit(1)
    for number in range(1000):
        rate.wait(f"caller {number}")
    assert len(rate._buckets) == 50
