"""Base64 as programs send it: every way to write the same bytes gives them."""

from __future__ import annotations

import base64
import textwrap

import pytest

from llada_uni.errors import UserError
from llada_uni.image.data_uri import read_base64, read_data_uri

DATA = bytes(range(256)) * 3 + b"\xfb\xef\xff"  # all characters of both alphabets come up
PLAIN = base64.b64encode(DATA).decode()
WAYS = {
    "plain": PLAIN,
    "url-safe": base64.urlsafe_b64encode(DATA).decode(),
    "without padding": base64.b64encode(DATA + b"\0").decode().rstrip("="),
    "lines": "\n".join(textwrap.wrap(PLAIN, 76)),
    "lines of Windows": "\r\n".join(textwrap.wrap(PLAIN, 76)) + "\r\n",
    "blanks": " " + PLAIN.replace("A", "A \t"),
    "escaped lines": "%0D%0A".join(textwrap.wrap(PLAIN, 76)),
    "escaped signs": PLAIN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_gives_the_bytes(name):
    assert read_base64(WAYS[name]).removesuffix(b"\0") == DATA


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:;base64,",
        "data:image/svg+xml;charset=utf-8;base64,",
        "data:image/png;name=a b (1).png;base64,",
        'data:image/png;filename="caf\u00e9.png";a=1;b=2;c=3;d=4;e=5;f=6;base64,',
        "data:application/octet-stream; base64,",
    ],
)
def test_any_parameters(head):
    assert read_data_uri(head + PLAIN) == DATA


@pytest.mark.parametrize("uri", ["data:image/png,abc", "data:image/png;base64", "data:a;base64x,AAAA", "nonsense"])
def test_other_forms_are_refused(uri):
    with pytest.raises(UserError, match="has the form"):
        read_data_uri(uri)


@pytest.mark.parametrize("text", ["A", "AA*A", "\u00e4AAA", "AA=A", "%41AAA"])
def test_no_base64(text):
    with pytest.raises(UserError, match="not valid base64"):
        read_base64(text)


def test_nothing_is_no_picture():
    with pytest.raises(UserError, match="is empty"):
        read_data_uri("data:image/png;base64,")
