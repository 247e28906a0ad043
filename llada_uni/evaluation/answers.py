"""Reads what a model's public calls give back: text, image, thoughts, frames.

A result may be a plain string or image, or an object with `.text`, `.image` or `.images`, `.thinking`; so any model with the
same calls can be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from PIL import Image

from llada_uni.errors import UserError


def text_of(result: Any) -> str:
    """The words of a result."""
    if isinstance(result, str):
        return result
    found = getattr(result, "text", None)
    return found if isinstance(found, str) else ""


def drawn_in(result: Any) -> Image.Image | None:
    """The (first) picture of a result, if it carries one."""
    if isinstance(result, Image.Image):
        return result
    found = getattr(result, "image", None) or next(iter(getattr(result, "images", ())), None)
    return found if isinstance(found, Image.Image) else None


def picture_of(result: Any) -> Image.Image:
    """The picture of a result; UserError when it carries none."""
    found = drawn_in(result)
    if found is None:
        raise UserError("the model gave no picture")
    return found


def thinking_of(result: Any) -> str:
    """The thought written before a picture, "" without one."""
    found = getattr(result, "thinking", None)
    return found if isinstance(found, str) else ""


def frames_of(parts: Iterable[Any]) -> list[tuple[str, Image.Image | None]]:
    """Pairs (sentence, picture) of an interleaved answer.

    A picture without words of its own has the sentence ""; words that no picture follows have the picture
    None.
    """
    frames: list[tuple[str, Image.Image | None]] = []
    words: list[str] = []
    for part in parts:
        image = part if isinstance(part, Image.Image) else getattr(part, "image", None)
        if isinstance(image, Image.Image):
            frames.append((" ".join(words).strip(), image))
            words = []
        elif text_of(part).strip():
            words.append(text_of(part).strip())
    if words:
        frames.append((" ".join(words), None))
    return frames
