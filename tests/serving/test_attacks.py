"""Attacks by hand on a server of the tiny model: bodies, numbers, text and pictures made to break it."""

from __future__ import annotations

import base64
import gc
import json

import pytest
from PIL import Image

from tests.serving.attacked import attacked, send
from tests.serving.broken_pictures import bombs, hidden_bombs, noise, saved, sound
from tests.serving.servers import data_uri
from tests.tiny_model import make_tiny_model

CHAT, DRAW, EDIT = "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits"
HELLO = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def app(tmp_path_factory, golden):
    with attacked(make_tiny_model(tmp_path_factory.mktemp("attacked") / "model", golden)) as application:
        yield application


def post(app, path, content, kind="application/json"):
    return send(app, "POST", path, content=content, headers={"content-type": kind})


RAW = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"a"',
    b"{}",
    b"\xff\xfe",
    b"\x00" * 1000,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"messages": ' + b"9" * 10_000 + b"}",
    b'{"prompt": "a", "seed": 1e400}',
    b'{"prompt": "a", "seed": NaN}',
    b'{"prompt": "a", "threshold": Infinity}',
    b'{"prompt": "\\ud800"}',
    b'{"\\ud800": 1, "prompt": "a"}',
    b'{"prompt": "a", "\\u0000": 1}',
    b'{"prompt": "a", "prompt": ["b"]}',
    b'{"messages": [{"role": "user", "content": "\\udfff"}]}',
    b'{"messages": [{"role": "\\ud800", "content": "a"}]}',
    b'{"prompt": "a", "__proto__": {"n": 9}, "__class__": "os"}',
    b'{"messages": [' + b'{"role":"user","content":"a"},' * 20_000 + b'{"role":"user","content":"a"}]}',
    b'{"prompt": "a", "stop": ' + b"[" * 500 + b"]" * 500 + b"}",
    '{"prompt": "a"}'.encode("utf-16"),
    b"\xef\xbb\xbf" + b'{"prompt": "a", "n": 99}',
    b"prompt=a&n=1",
    b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    b"a" * (2**20 + 1),
]


@pytest.mark.parametrize("path", [CHAT, DRAW, EDIT])
def test_raw_bodies(app, path):
    for body in RAW:
        assert 400 <= post(app, path, body).status_code < 500, body[:60]


def test_other_content_types(app):
    for kind in ("", "text/plain", "application/xml", "multipart/form-data", "application/x-www-form-urlencoded", "a" * 5000):
        for path in (CHAT, DRAW, EDIT):
            assert 400 <= post(app, path, json.dumps({"prompt": "a cat"}), kind).status_code < 500


def part(name: str, content: bytes, file: str | None = None, more: str = "") -> bytes:
    named = f'; filename="{file}"' if file is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{more}\r\n'.encode() + content + b"\r\n"


def forms() -> list[bytes]:
    picture, end = part("image", saved(noise()), "a.png"), b"--b--\r\n"
    prompt = part("prompt", b"a cat")
    return [
        b"",
        b"--b",
        end,
        prompt + end,
        picture + end,
        picture + prompt,
        picture * 50 + prompt + end,
        part("image", b"") + prompt + end,
        part("image", b"", "") + prompt + end,
        part("image", b"text", "../../../etc/passwd") + prompt + end,
        part("image", b"text", "../../../tmp/x\x00.png") + part("prompt", b"\xff\xfe") + end,
        picture + part("mask", b"no picture", "m.png") + prompt + end,
        picture + part("mask", saved(noise()), "m.png") * 2 + prompt + end,
        picture + prompt + part("n", b"1" * 5000) + end,
        picture + prompt + part("sprint[r]", b"nan") + part("sprint", b"1") + end,
        picture + prompt + b"".join(part(f"field{n}", b"x") for n in range(2000)) + end,
        picture + prompt + part("a" * 100_000, b"x") + end,
        picture
        + prompt
        + part("n", b"2", more="Content-Transfer-Encoding: base64\r\nContent-Type: a;charset=utf-7\r\n") * 3
        + end,
        b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\n\r\n" + end,
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + end,
    ]


def test_forms(app):
    for form in forms():
        assert 400 <= post(app, EDIT, form, "multipart/form-data; boundary=b").status_code < 500, form[:80]
    for kind in ("multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 5000, "multipart/form-data;;="):
        assert 400 <= post(app, EDIT, forms()[6], kind).status_code < 500


NUMBERS = [-1, 0, 2**31, 2**63 - 1, 2**63, 10**300, -(10**300), 1.5, 1e308, True, None, "1", [], {}]
FIELDS = {
    DRAW: "n seed steps cfg_scale threshold temperature top_p top_k block_length decoder_steps output_compression size "
    "partial_images sprint rule confidence decoder output_format thinking",
    CHAT: "n seed steps max_tokens max_completion_tokens temperature top_p top_k threshold block_length max_frames size "
    "text_scale image_scale rescale stop sprint modalities stream_options",
}


@pytest.mark.parametrize("path", FIELDS)
def test_numbers_out_of_reason(app, path):
    """Each field with each number; whatever is possible is done, with few steps, all else refused."""
    base = HELLO if path == CHAT else {"prompt": "a cat", "image_steps": 1, "decoder_steps": 1}
    for name in FIELDS[path].split():
        for value in NUMBERS:
            send(app, "POST", path, json={**base, name: value})


@pytest.mark.parametrize(
    "size", ["0x0", "1x1", "33x32", "32x32000", "999999x999999", "-32x32", "32X32", "١x٢", "32x32x32", "x"]
)
def test_sizes(app, size):
    assert send(app, "POST", DRAW, json={"prompt": "a cat", "size": size}).status_code == 400


WORDS = [
    "\0",
    "\x1b[2J",
    "\u202e",
    "a" * 2001,
    "é" * 1500,
    "\ufeff",
    "𝕊" * 1000,
    " ",
    "\r\n\r\n",
    "data: [DONE]\n\n",
    "%s{0}",
    "🦊",
]


def test_words(app):
    for words in WORDS:
        send(app, "POST", DRAW, json={"prompt": words, "image_steps": 1, "decoder_steps": 1})
        send(app, "POST", CHAT, json={**HELLO, "messages": [{"role": "user", "content": words}], "stop": [words, "a"]})
        assert send(app, "POST", CHAT, json={**HELLO, "model": words}).status_code == 404


PATHS = [
    "/studio/../../../../etc/passwd",
    "/studio/%2e%2e/%2e%2e/etc/passwd",
    "/studio/..%5c..%5cetc",
    "/studio//etc/passwd",
    "/studio/%00",
    "/v1/models/..%2f..%2fetc%2fpasswd",
    "/v1/models/%00%0a%0d",
    "/v1/../metrics/../../x",
    "/" + "a" * 20_000,
    "/studio/" + "a" * 5000,
]


def test_paths(app):
    for path in PATHS:
        answer = send(app, "GET", path)
        assert answer.status_code in (400, 404) and "root:" not in answer.text, path
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "WRONG"):
        assert send(app, method, CHAT).status_code == 405


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def asking_about(url: str) -> dict:
    content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 2, "text_steps": 1}


def test_bombs(app):
    for name, data in bombs().items():
        assert send(app, "POST", CHAT, json=asking_about(uri(data))).status_code in (400, 413), name
        files = {"image": ("a.png", data, "image/png")}
        assert send(app, "POST", EDIT, files=files, data={"prompt": "a"}).status_code in (400, 413), name
    for data in hidden_bombs().values():
        send(app, "POST", CHAT, json=asking_about(uri(data)))


def test_pictures_of_every_kind_are_read(app):
    for name, data in sound().items():
        assert send(app, "POST", CHAT, json=asking_about(uri(data))).status_code == 200, name


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "https://169.254.169.254/latest/meta-data", "file:///etc/passwd", "//x/y", "data:,", "ftp://a/b", ""],
)
def test_urls_of_pictures(app, url):
    assert send(app, "POST", CHAT, json=asking_about(url)).status_code == 400
    assert send(app, "POST", EDIT, json={"prompt": "a", "image": url}).status_code == 400


def test_more_pictures_than_allowed(app):
    picture = data_uri(Image.new("RGB", (32, 32)))
    answer = send(app, "POST", EDIT, json={"prompt": "a", "images": [picture] * 4})
    assert answer.status_code == 400 and "3" in answer.json()["error"]["message"]


def test_nothing_of_this_machine_is_told(app, golden, tmp_path):
    """Also where the fault lies in the model's directory: the path of the directory stays here."""
    folder = make_tiny_model(tmp_path / "secret-place" / "model", golden)
    for name in ("decoder", "decoder-turbo"):
        (folder / name / "config.json").unlink()
    (folder / "image_tokenizer" / "sigvq_embedding.pt").write_bytes(b"broken")
    with attacked(folder) as broken:
        for path, body in ((DRAW, {"prompt": "a cat"}), (CHAT, asking_about(data_uri(noise()))), (CHAT, {**HELLO, "n": 2})):
            answer = send(broken, "POST", path, json=body)
            assert "secret-place" not in answer.text
        for path in ("/ready", "/metrics", "/v1/llada/defaults", "/v1/models", "/openapi.json"):
            assert "secret-place" not in send(broken, "GET", path).text


def test_it_still_works_after_all_that(app):
    """And holds none of the pictures that came."""
    gc.collect()
    assert app.state.context.pictures.held == 0
    assert send(app, "POST", CHAT, json=HELLO).status_code == 200
    assert send(app, "GET", "/ready").status_code == 200
