"""What one service takes on at most, and whether a request is within it, before any work is done for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.requests import Request
from llada_uni.serving.scheduler.job import MOST_PARTIALS

MEBI = 2**20


@dataclass(frozen=True)
class Limits:
    """max_batch: requests worked on at a time; max_queue: requests that wait. max_pixels: of one picture that comes in
    or is asked for; max_pictures: in one request; max_held_pixels: of the pictures of all HTTP requests under way.
    max_tokens: words an answer may ask for; max_prompt_chars: characters of all words of a request. timeout: seconds from
    arrival to the end of the answer. max_body: bytes of an HTTP body; max_n: results of one HTTP request, and candidates
    of one result. rate: requests a minute and key, None for no limit. prefix_cache_bytes: memory for beginnings of prompts
    that requests share.

    Raises UserError for a number that makes no sense.
    """

    max_batch: int = 32
    max_queue: int = 128
    max_pixels: int = 16_000_000
    max_pictures: int = 8
    max_held_pixels: int = 256_000_000
    max_tokens: int = 4096
    max_prompt_chars: int = 20_000
    timeout: float = 300.0
    max_body: int = 32 * MEBI
    max_n: int = 8
    rate: float | None = None
    prefix_cache_bytes: int = 64 * MEBI

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name in _MAY_BE_ZERO else 1
            if field.name == "rate" and value is None:
                continue
            if field.name in ("timeout", "rate"):
                if not value > 0:
                    raise UserError(f"{field.name} is {value}; allowed: more than 0")
            elif value < least:
                raise UserError(f"{field.name} is {value}; allowed: at least {least}")


_MAY_BE_ZERO = ("max_queue", "max_pictures", "prefix_cache_bytes")


def check_request(request: Request, limits: Limits, partial_images: int = 0) -> None:
    """UserError, naming the limit, when texts, images or what is asked for exceed it.

    Whether the values make sense is checked by the request itself and by its task.
    """
    if not 0 <= partial_images <= MOST_PARTIALS:
        raise UserError(f"an image has 0 to {MOST_PARTIALS} partial images, not {partial_images}")
    contents = [part for name, value in request if name not in request.panels for part in _parts(value)]
    characters = sum(len(part) for part in contents if isinstance(part, str))
    if characters > limits.max_prompt_chars:
        raise UserError(f"the request has {characters} characters of text; allowed: {limits.max_prompt_chars}")
    masks = 1 if "mask" in type(request).model_fields else 0
    images = [part for part in contents if isinstance(part, Image.Image)]
    if len(images) - masks > limits.max_pictures:
        raise UserError(f"the request has {len(images) - masks} images; allowed: {limits.max_pictures}")
    for image in images:
        _check_size("an image of the request", image.width, image.height, limits)
    height, width = getattr(request, "height", None), getattr(request, "width", None)
    if height and width:
        _check_size("the image asked for", width, height, limits)
    for name, value in request:
        if name.endswith("max_tokens") and (value or 0) > limits.max_tokens:
            raise UserError(f"{name} is {value}; allowed: {limits.max_tokens}")
        if name == "n_best" and (value or 0) > limits.max_n:
            raise UserError(f"{name} is {value}; allowed: {limits.max_n}")


def _check_size(what: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise UserError(f"{what} has {width} x {height} pixels; allowed: {limits.max_pixels} in all")


def _parts(value: Any) -> Iterator[Any]:
    """Texts and images of a field, also of messages ({"role", "content"}) and of lists of them."""
    if isinstance(value, Mapping):
        value = value.get("content", ())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    else:
        yield value
