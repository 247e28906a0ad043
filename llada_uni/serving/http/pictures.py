"""Pictures from strangers: bytes or a URL of a request -> a PIL picture that tasks may use.

A data URI, an http(s) URL (serving/http/fetch.py, only where the server allows it) or bytes ->
format by content, never by name -> size from the header, before any pixel exists -> pixels, turned upright ->
a picture that holds nothing but pixels: no file, no metadata. Scaling to what the model reads, and laying
transparency on white, is left to `image/reader.py`, as for every other caller.
"""

from __future__ import annotations

import asyncio
import io
import threading
import weakref
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from llada_uni.errors import UserError
from llada_uni.image.data_uri import is_data_uri, read_data_uri
from llada_uni.serving.errors import QueueFull
from llada_uni.serving.http.fetch import fetch

if TYPE_CHECKING:
    from llada_uni.serving.scheduler.limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # decoded in process, by libraries that are fuzzed and kept up
# A progressive JPEG may repeat its whole area in every scan; common encoders write about ten.
MAX_JPEG_SCANS = 100
RETRY_SECONDS = 5  # after which a client whose picture found no room may try again
_SCAN = b"\xff\xda"  # inside coded data 0xFF is always followed by 0x00 or a restart mark, so this counts scans


class PictureMemory:
    """How many pixels the pictures of all requests under way have together; a picture counts while anything uses it.

    A file of a few kilobytes may become the largest picture allowed: without this, a crowd of them takes all memory.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, threading.Lock()

    def take(self, pixels: int) -> None:
        """Counts them. Raises QueueFull when there would be too many."""
        with self._lock:
            if self._held + pixels > self._most:
                raise QueueFull("the pictures of other requests take all memory set aside for pictures", RETRY_SECONDS)
            self._held += pixels

    def give(self, pixels: int) -> None:
        """They are no longer in use."""
        with self._lock:
            self._held -= pixels

    @property
    def held(self) -> int:
        return self._held


def read_picture(data: bytes, limits: Limits, memory: PictureMemory | None = None) -> Image.Image:
    """The picture in `data`: RGB, RGBA or L, or as it is stored where a pixel has more than 8 bits (I;16, I, F).

    Of an animation the first frame; EXIF rotation is done. At most `limits.max_pixels` pixels, refused from the
    header. UserError (one line) for other formats, for too many pixels, and for damaged files. memory: where the
    pixels are counted before they exist; QueueFull where it has no room.
    """
    picture = _open(data)
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise UserError(f"the picture has {width} x {height} px; allowed: at most {limits.max_pixels} px in all")
    if picture.format in ("JPEG", "MPO") and data.count(_SCAN) > MAX_JPEG_SCANS:
        raise UserError(f"the JPEG picture has more than {MAX_JPEG_SCANS} scans; save it as a baseline JPEG")
    if memory is None:
        return _decoded(picture)
    memory.take(width * height)
    try:
        plain = _decoded(picture)
    except UserError:
        memory.give(width * height)
        raise
    weakref.finalize(plain, memory.give, width * height)
    return plain


def _decoded(picture: Image.Image) -> Image.Image:
    try:
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return _only_pixels(picture)
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        raise UserError("the picture is damaged and cannot be read") from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UserError("the picture has too many pixels") from error
    except Exception as error:
        raise UserError(f"this is no picture that can be read; allowed: {', '.join(FORMATS)}") from error


def _only_pixels(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # scaled to 8 bits where every picture is
        plain = picture.copy()
    elif "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        plain = picture.convert("RGBA")
    else:
        plain = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    plain.info = {}
    return plain


async def picture_from_url(url: str, limits: Limits, allow_remote: bool, memory: PictureMemory | None = None) -> Image.Image:
    """The picture that a data URI holds, or that an http(s) URL names where `allow_remote` says so.

    Decoding runs in a thread: the caller's event loop goes on. UserError as `read_picture` and `fetch` raise it.
    """
    if is_data_uri(url):
        return await asyncio.to_thread(lambda: read_picture(read_data_uri(url), limits, memory))
    if url[:8].partition(":")[0].lower() not in ("http", "https"):
        raise UserError("a picture's URL is a data URI (data:image/png;base64,...) or begins with https://")
    if not allow_remote:
        raise UserError("this server reads no pictures from other servers; send them as data URIs")
    data = await fetch(url, limits.max_body)
    return await asyncio.to_thread(read_picture, data, limits, memory)
