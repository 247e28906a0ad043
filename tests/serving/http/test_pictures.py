"""Pictures of strangers: ordinary ones come through as everywhere else, bombs cost nothing, damage is one line."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.data_uri import read_data_uri
from llada_uni.image.reader import open_image
from llada_uni.serving.errors import QueueFull
from llada_uni.serving.http.pictures import PictureMemory, picture_from_url, read_picture
from llada_uni.serving.scheduler.limits import Limits
from tests.serving.broken_pictures import (
    bombs,
    chunk,
    damaged,
    hidden_bombs,
    jpeg_with_scans,
    noise,
    png,
    saved,
    sound,
)

LIMITS = Limits()


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 200
    return message


def sixteen_bits() -> bytes:
    return saved(Image.fromarray(np.array([[0, 257, 32768, 65535]] * 4, np.uint16)))


def rotated(kind: str) -> bytes:
    picture = Image.new("RGB", (8, 4), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for showing
    return saved(picture, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


def ordinary() -> dict[str, bytes]:
    half = noise().convert("RGBA")
    half.putalpha(Image.linear_gradient("L").resize(half.size))
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    return {
        **sound(),
        "half transparent": saved(half),
        "gray with alpha": saved(half.convert("LA")),
        "palette with transparency": saved(noise().convert("P"), transparency=3),
        "one color transparent": saved(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3)),
        "one bit": saved(noise().convert("1")),
        "sixteen bits": sixteen_bits(),
        "exif png": rotated("PNG"),
        "exif jpeg": rotated("JPEG"),
        "exif webp": rotated("WEBP"),
        "animated gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated webp": saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "animated png": saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
    }


@pytest.mark.parametrize("name", ordinary())
def test_tasks_see_the_same_pixels_as_from_the_file(name):
    data = ordinary()[name]
    picture = read_picture(data, LIMITS)
    ours, direct = open_image(picture), open_image(data)
    assert (ours.size, ours.tobytes()) == (direct.size, direct.tobytes())
    assert not picture.info, "nothing but pixels goes on"


def test_transparency_is_kept_for_masks():
    mask = Image.new("RGBA", (4, 4), (9, 9, 9, 255))
    mask.putpixel((1, 2), (9, 9, 9, 0))
    assert read_picture(saved(mask), LIMITS).getpixel((1, 2)) == (9, 9, 9, 0)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused(name):
    with pytest.raises(UserError) as caught:
        read_picture(bombs()[name], LIMITS)
    one_line(caught)


READ_ALL = """
import json, resource, sys
from pathlib import Path
from llada_uni.errors import UserError
from llada_uni.serving.errors import QueueFull
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.http.pictures import read_picture
from PIL import Image
Image.init()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, grown = peak(), {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    start = peak()
    try:
        read_picture(file.read_bytes(), Limits())
    except UserError:
        pass
    grown[file.name] = peak() - start
print(json.dumps({"total": peak() - before, "grown": grown, "torch": "torch" in sys.modules}))
"""


def test_bombs_cost_no_memory(tmp_path):
    """All in one process of their own: measured, its peak grows by 5 MiB."""
    for number, data in enumerate({**bombs(), **hidden_bombs()}.values()):
        (tmp_path / f"{number:02}").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", READ_ALL, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["total"] < 32 * 1024, seen  # KiB
    assert not seen["torch"], "reading pictures needs no networks"


def test_the_limit_is_on_pixels_and_is_stated():
    exactly = png(40, 25, zlib.compress(bytes(41 * 25)))
    assert read_picture(exactly, Limits(max_pixels=1000)).size == (40, 25)
    with pytest.raises(UserError, match=r"40 x 25 px; allowed: at most 999 px"):
        read_picture(exactly, Limits(max_pixels=999))


def test_a_progressive_jpeg_may_have_some_scans_more():
    assert read_picture(jpeg_with_scans(20), LIMITS).size == (48, 48)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO", "PDF", "EPS", "TGA", "PCX"])
def test_other_formats_are_refused(kind):
    with pytest.raises(UserError, match="allowed: PNG, JPEG, WEBP, GIF"):
        read_picture(saved(noise(), kind), LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"<!DOCTYPE html><script>alert(1)</script>",
        b"PK\x03\x04" + bytes(100),
        bytes(10_000),
    ],
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(UserError) as caught:
        read_picture(data, LIMITS)
    one_line(caught)


@pytest.mark.parametrize("tail", [b"PK\x03\x04" + bytes(50), b"<script>alert(1)</script>", b"<?php ?>", b"%PDF-1.7"])
def test_of_polyglots_only_the_pixels_remain(tail):
    picture = noise()
    comment = chunk(b"tEXt", b"Comment\0" + tail)
    data = saved(picture)
    inside = data[:33] + comment + data[33:]  # after the header chunk
    for polyglot in (data + tail, inside):
        read = read_picture(polyglot, LIMITS)
        assert read.tobytes() == picture.tobytes()
        assert tail not in saved(read)


def test_damaged_files_are_read_or_refused_in_one_line():
    refused = 0
    for _, data in damaged(40):
        try:
            read_picture(data, LIMITS)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100, "the damage is real"


def test_half_a_file_is_refused():
    for name, data in sound().items():
        with pytest.raises(UserError):
            read_picture(data[: len(data) // 2], LIMITS)
            pytest.fail(f"half of {name} was read")


def as_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("kind", ["image/png", "", "image/jpeg", "text/html", "image/png;charset=utf-8", "IMAGE/PNG"])
def test_data_uris_whatever_type_they_state(kind):
    picture = asyncio.run(picture_from_url(as_uri(saved(noise()), kind), LIMITS, allow_remote=False))
    assert picture.tobytes() == noise().tobytes()


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png,abc",
        "data:image/png;base64",
        "data:",
        "data:image/png;base64,====",
        "data:image/png;base64,AAA",
        "data:image/png;base64,AA AA",
        "data:image/png;base64,ÄÖÜ",
        "data:image/png;base64,\ud800",
        "data:" + "a" * 10_000 + ";base64,AAAA",
        "data:image/png" + ";a=b" * 100_000,
        "file:///etc/passwd",
        "/etc/passwd",
        "ftp://example.com/a.png",
        "gopher://127.0.0.1:6379/_",
        "javascript:alert(1)",
        "",
        "\0",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(UserError) as caught:
        asyncio.run(picture_from_url(url, LIMITS, allow_remote=True))
    assert "passwd" not in one_line(caught)


def test_remote_pictures_need_the_flag():
    with pytest.raises(UserError, match="data URIs"):
        asyncio.run(picture_from_url("https://example.com/a.png", LIMITS, allow_remote=False))


def test_a_data_uri_gives_its_bytes():
    assert read_data_uri(as_uri(b"\0\1\2")) == b"\0\1\2"
    with pytest.raises(UserError, match="base64"):
        read_data_uri("data:image/png;base64,%41")


def test_png_sizes_that_overflow():
    """Width and height whose product wraps to something small in 32 bits."""
    for width, height in ((65536, 65536), (2**31 - 1, 2), (2, 2**31 - 1), (0, 5), (5, 0)):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        with pytest.raises(UserError):
            read_picture(data, LIMITS)


def test_all_pictures_together_have_a_limit():
    """Counted before they are decoded, and no longer when nothing uses them."""
    memory = PictureMemory(2 * 48 * 48)
    first = read_picture(saved(noise()), LIMITS, memory)
    second = read_picture(saved(noise()), LIMITS, memory)
    with pytest.raises(QueueFull) as caught:
        read_picture(saved(noise()), LIMITS, memory)
    assert caught.value.retry_after
    del first
    third = read_picture(saved(noise()), LIMITS, memory)
    del second, third
    gc.collect()
    assert memory.held == 0


def test_refused_pictures_are_not_counted():
    memory = PictureMemory(10**6)
    for data in (*bombs().values(), *(data for _, data in damaged(8))):
        try:
            read_picture(data, LIMITS, memory)
        except (UserError, QueueFull):
            pass
    gc.collect()
    assert memory.held == 0
