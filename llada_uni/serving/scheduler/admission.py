"""Whether a request is within the limits of a service, before any work is done for it.

Its texts and images are counted and measured; UserError names the limit. Whether its values make sense is checked by the
request itself and by its task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.requests import Request
from llada_uni.serving.scheduler.job import MOST_PARTIALS
from llada_uni.serving.scheduler.limits import Limits


def check_request(request: Request, limits: Limits, partial_images: int = 0) -> None:
    """UserError when texts, images or what is asked for exceed the limits."""
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
