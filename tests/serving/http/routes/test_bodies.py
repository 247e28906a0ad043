"""Bodies as strangers' programs write them: marks before the text, names given twice, two lengths."""

from __future__ import annotations

import asyncio
import codecs
import errno
import os

import pytest
from PIL import Image

from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from tests.serving.servers import ScriptedService, ask, error_of, png, scripted, words

PATH = "/v1/chat/completions"
BODY = b'{"messages": [{"role": "user", "content": "x"}]}'
JSON = {"content-type": "application/json"}


def test_a_byte_order_mark_is_passed_over():
    assert ask(scripted(words)[1], PATH, content=codecs.BOM_UTF8 + BODY, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"seed": 1, "seed": 2, "messages": []}', "seed"),
        (b'{"messages": [{"role": "user", "role": "assistant", "content": "x"}]}', "role"),
    ],
)
def test_a_name_given_twice_is_refused(body, name):
    response = ask(scripted(words)[1], PATH, content=body, headers=JSON)
    assert response.status_code == 400 and error_of(response)["param"] == name
    assert error_of(response)["message"] == f"{name} is given twice"


def test_two_lengths_of_a_body_are_refused():
    """On the level of ASGI: HTTP libraries refuse to send such a request, and some servers to read it."""
    app = create_app(ScriptedService(words), ServerOptions(model_name="scripted"))
    lengths = [(b"content-length", b"%d" % len(BODY)), (b"transfer-encoding", b"chunked")]
    headers = [(b"content-type", b"application/json"), *lengths]
    scope = {
        "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    sent = []

    async def receive():
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400 and (b"connection", b"close") in sent[0]["headers"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_fault_of_the_client(monkeypatch, number):
    def full(*given, **named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", full)
    picture = ("image", ("a.png", png(Image.new("RGB", (2, 2))), "image/png"))
    response = ask(scripted(words)[1], "/v1/images/edits", data={"prompt": "x"}, files=[picture])
    assert response.status_code == 507 and "no space left" in error_of(response)["message"]
    assert response.headers["retry-after"] == "30"
