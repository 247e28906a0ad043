"""Pictures made to harm: bombs, lies in headers, damage. Each is small; what it would become is not.

Nothing in; name -> bytes of a file out.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

ZEROS = zlib.compress(bytes(100 * 2**20), 9)  # 100 MiB in 100 kB


def saved(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(side: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, before: bytes = b"", after: bytes = b"", depth: int = 8) -> bytes:
    """A gray PNG with the compressed rows `data`, and chunks before and after them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


SMALL_ROWS = zlib.compress(bytes(4 * 5))  # 4 x 4 gray pixels, each row after its filter byte


def jpeg_saying(width: int, height: int) -> bytes:
    data = bytearray(saved(noise(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan stands there `count` times more."""
    data = saved(noise(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


def webp_saying(width: int, height: int) -> bytes:
    """An animated (VP8X) WebP whose canvas is stated so large."""
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = bytearray(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:30] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return bytes(data)


def gif_saying(width: int, height: int, frame: bool) -> bytes:
    """A GIF that states the size for its screen, or for its first frame."""
    data = bytearray(saved(Image.new("P", (16, 16)), "GIF"))
    at = data.index(b"\x2c") + 5 if frame else 6
    data[at : at + 4] = struct.pack("<HH", width, height)
    return bytes(data)


def looping_exif() -> bytes:
    """A JPEG whose EXIF directory names itself as the next one and states absurd counts."""
    entry = struct.pack("<HHII", 0x0112, 3, 0x7FFFFFFF, 8)
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)
    return saved(noise(), "JPEG", exif=b"Exif\0\0" + tiff)


def bombs() -> dict[str, bytes]:
    """Files that are to be refused: small, and huge once opened."""
    return {
        "png 60000 x 60000": png(60000, 60000, ZEROS),
        "png 20000 x 20000 of one bit": png(20000, 20000, ZEROS, depth=1),
        "png 5000 x 5000": png(5000, 5000, ZEROS),
        "png 4294967295 x 1": png(2**32 - 1, 1, ZEROS),
        "jpeg 65500 x 65500": jpeg_saying(65500, 65500),
        "jpeg of 5000 scans": jpeg_with_scans(5000),
        "webp 16384 x 16384": webp_saying(16384, 16384),
        "webp 10000 x 10000": webp_saying(10000, 10000),
        "gif screen 65535 x 65535": gif_saying(65535, 65535, frame=False),
        "gif screen 9000 x 9000": gif_saying(9000, 9000, frame=False),
        "gif frame 65535 x 65535": gif_saying(65535, 65535, frame=True),
    }


def hidden_bombs() -> dict[str, bytes]:
    """Files of a few pixels that carry far more: they may be read or refused, and must cost nothing."""
    comment = b"Comment\0\0" + ZEROS
    international = b"Comment\0\1\0\0\0" + ZEROS
    profile = b"icc\0\0" + ZEROS
    one_mebi = b"k\0\0" + zlib.compress(bytes(2**20 - 1), 9)
    frames = [Image.new("P", (4, 4), n % 2) for n in range(600)]
    return {
        "png with a long picture stream": png(4, 4, ZEROS),
        "png iCCP": png(4, 4, SMALL_ROWS, before=chunk(b"iCCP", profile)),
        "png zTXt": png(4, 4, SMALL_ROWS, before=chunk(b"zTXt", comment)),
        "png zTXt after the pixels": png(4, 4, SMALL_ROWS, after=chunk(b"zTXt", comment)),
        "png iTXt": png(4, 4, SMALL_ROWS, before=chunk(b"iTXt", international)),
        "png many zTXt": png(4, 4, SMALL_ROWS, before=chunk(b"zTXt", one_mebi) * 500),
        "gif of 600 frames": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "jpeg with looping exif": looping_exif(),
    }


def sound() -> dict[str, bytes]:
    """Ordinary files of every format and kind, to be damaged."""
    picture = noise()
    return {
        "png": saved(picture),
        "png palette": saved(picture.convert("P")),
        "png alpha": saved(picture.convert("RGBA")),
        "jpeg": saved(picture, "JPEG"),
        "jpeg progressive": saved(picture, "JPEG", progressive=True),
        "jpeg cmyk": saved(picture.convert("CMYK"), "JPEG"),
        "webp": saved(picture, "WEBP"),
        "webp lossless": saved(picture, "WEBP", lossless=True),
        "gif": saved(picture, "GIF"),
    }


def damaged(per_file: int) -> Iterator[tuple[str, bytes]]:
    """`per_file` damaged copies of each sound file: cut short, bytes changed, stretches lost or repeated."""
    chance = random.Random(1)
    for name, whole in sound().items():
        for number in range(per_file):
            data = bytearray(whole)
            start = chance.randrange(len(data))
            stop = min(len(data), start + chance.randrange(1, 200))
            kind = number % 4
            if kind == 0:
                del data[start:]
            elif kind == 1:
                for _ in range(chance.randrange(1, 20)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            elif kind == 2:
                del data[start:stop]
            else:
                data[start:start] = data[start:stop] * chance.randrange(1, 50)
            yield f"{name} {number}", bytes(data)
