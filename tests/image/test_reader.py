"""Pictures from outside: every mode comes out as upright RGB, and nothing too large or broken gets
through."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.reader import open_image


def png_header(width: int, height: int) -> bytes:
    """A PNG that states a size and holds next to nothing: decoding it would fail, reading its header does
    not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def as_bytes(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_no_picture(content, tmp_path):
    with pytest.raises(UserError, match="no picture that can be read"):
        open_image(content)
    file = tmp_path / "note.png"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"note\.png is no picture"):
        open_image(file)


def test_missing_and_wrong_things(tmp_path):
    with pytest.raises(UserError, match="there is no picture"):
        open_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="is a directory"):
        open_image(tmp_path)
    with pytest.raises(UserError, match="not int"):
        open_image(7)


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (20000, 20), (20, 20000), (10000, 10000), (16000, 70), (30000, 30000), (60000, 60000)],
)
def test_sizes_are_refused_from_the_header(width, height, recwarn):
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        open_image(png_header(width, height))
    assert time.perf_counter() - start < 0.5
    message = str(caught.value)
    assert "allowed: sides 2 to 16384 px, at most 64 megapixels" in message
    assert "at most 200 times" in message
    assert "\n" not in message
    assert not recwarn.list


def test_limits_let_ordinary_extremes_through():
    assert open_image(as_bytes(Image.new("RGB", (2, 2)))).size == (2, 2)
    assert open_image(Image.new("RGB", (400, 2))).size == (400, 2)


def test_size_of_a_picture_in_memory():
    with pytest.raises(UserError, match="1 x 1 px"):
        open_image(Image.new("RGB", (1, 1)))


def test_truncated_file():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for kind in ("PNG", "JPEG"):
        whole = as_bytes(noise, kind)
        with pytest.raises(UserError, match="damaged"):
            open_image(whole[: len(whole) // 2])


def test_transparency_is_laid_on_white():
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    half.putpixel((0, 0), (10, 20, 30, 255))
    half.putpixel((1, 0), (0, 0, 0, 128))
    opened = open_image(as_bytes(half))
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (10, 20, 30)
    assert opened.getpixel((3, 3)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (127, 127, 127)
    gray = Image.new("LA", (4, 4), (7, 0))
    assert open_image(as_bytes(gray)).getpixel((0, 0)) == (255, 255, 255)


def test_palette_with_and_without_transparency():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert open_image(as_bytes(palette)).getpixel((0, 0)) == (0, 255, 0)
    assert open_image(as_bytes(palette, transparency=1)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_gray_is_scaled_not_clipped():
    levels = np.array([[0, 257, 32768, 65535]] * 4, np.uint16)
    opened = open_image(as_bytes(Image.fromarray(levels)))
    assert [opened.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_exif_rotation_is_undone():
    picture = Image.new("RGB", (8, 4), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for showing
    opened = open_image(as_bytes(picture, exif=exif))
    assert opened.size == (4, 8)
    assert opened.getpixel((3, 0)) == (255, 255, 255)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    opened = open_image(as_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert opened.getpixel((0, 0)) == (255, 0, 0)


# --- from whatever holds an image ---

PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8))


def holders(folder) -> dict[str, object]:
    data = as_bytes(PICTURE)
    (folder / "a.png").write_bytes(data)
    written = io.BytesIO()
    PICTURE.save(written, "PNG")  # stands at its end
    return {
        "path": folder / "a.png",
        "name": str(folder / "a.png"),
        "home": "~/a.png",
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "written file in memory": written,
        "open file": (folder / "a.png").open("rb"),
        "data URI": f"data:image/png;base64,{base64.b64encode(data).decode()}",
        "PIL": PICTURE,
        "array": np.asarray(PICTURE),
        "tensor": torch.from_numpy(np.asarray(PICTURE).copy()).permute(2, 0, 1) / 255,
    }


@pytest.mark.parametrize(
    "name",
    [
        "path", "name", "home", "bytes", "bytearray", "memoryview", "written file in memory", "open file", "data URI", "PIL",
        "array", "tensor",
    ],
)  # fmt: skip
def test_whatever_holds_an_image(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    opened = open_image(holders(tmp_path)[name])
    assert opened.mode == "RGB" and opened.tobytes() == PICTURE.tobytes()


def test_what_is_not_read(tmp_path):
    with pytest.raises(UserError, match="addresses are not fetched, download"):
        open_image("https://example.com/a.png")
    with pytest.raises(UserError, match="must be opened as bytes"):
        open_image(io.StringIO("text"))
    closed = io.BytesIO(b"")
    closed.close()
    with pytest.raises(UserError, match="cannot be read"):
        open_image(closed)


# --- modes ---


MODES = "1 L P RGB RGBA CMYK YCbCr LAB HSV I F LA PA RGBX RGBa La I;16 I;16L I;16B I;16N".split()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode):
    assert open_image(Image.new(mode, (4, 4))).mode == "RGB"


@pytest.mark.parametrize("top", [255, 65535])
def test_32_bit_gray_is_read_by_its_range(top):
    levels = np.array([[0, top // 255, top // 5 * 2, top]] * 4, np.int32)
    for given in (Image.fromarray(levels), as_bytes(Image.fromarray(levels), "TIFF")):
        assert [open_image(given).getpixel((x, 0))[0] for x in range(4)] == [0, 1, 102, 255]


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_gray_is_read_by_its_range(top):
    levels = np.array([[0, top / 255, top * 0.4, top]] * 4, np.float32)
    for given in (Image.fromarray(levels), as_bytes(Image.fromarray(levels), "TIFF")):
        assert [open_image(given).getpixel((x, 0))[0] for x in range(4)] == [0, 1, 102, 255]


def test_gray_of_no_range_says_so():
    with pytest.raises(UserError, match="the picture: the image's values go from -1 to 1"):
        open_image(Image.fromarray(np.array([[-1.0, 1.0]] * 2, np.float32)))


def test_a_premultiplied_gray_keeps_its_level():
    assert open_image(Image.new("LA", (4, 4), (100, 255)).convert("La")).getpixel((0, 0)) == (100, 100, 100)
