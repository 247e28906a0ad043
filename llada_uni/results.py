"""What the task calls give back: pictures, codes and words, with the seed and the work that went into them.

What flows through: ids and pictures from the tasks -> small frozen records that a program can read
(`to_json`) and a person can save (`save`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class Evaluations:
    """How often each network ran. backbone: steps of the language model (the branches of guidance run
    together and count once); branches: the same with every branch counted; decoder: evaluations of the
    flow-matching transformer.
    """

    backbone: int = 0
    branches: int = 0
    decoder: int = 0

    def __add__(self, other: Evaluations) -> Evaluations:
        return Evaluations(self.backbone + other.backbone, self.branches + other.branches, self.decoder + other.decoder)

    def to_json(self) -> dict[str, int]:
        return {"backbone": self.backbone, "branches": self.branches, "decoder": self.decoder}


@dataclass(frozen=True)
class Progress:
    """One step of a running task.

    stage: "text" (words or thoughts), "codes" (a picture as codes) or "decode" (codes to pixels); done of
    total: places filled or decoder evaluations made (total of text is the most it may become); tokens: the
    draft of the open block, settled: which of them will not change any more, confidences: how sure the model
    was of each, start: the answer's index of the first of them (all empty while decoding). grid: (rows,
    columns) of the picture whose codes these are. text: words that have become certain, never taken back;
    those of one stretch, put together, are its text.
    """

    stage: str
    done: int
    total: int
    tokens: tuple[int, ...] = ()
    settled: tuple[bool, ...] = ()
    start: int = 0
    confidences: tuple[float, ...] = ()
    grid: tuple[int, int] | None = None
    text: str = ""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class ImageResult:
    """A picture the model drew.

    image: RGB, or None when it was asked for as codes only; codes: its grid; prompt: what was asked; text:
    the thought or sentence that came with it, or None; seed: gives the same result again on the same machine;
    seconds: by stage.
    """

    image: Image.Image | None
    codes: ImageCodes
    prompt: str
    seed: int
    text: str | None = None
    evaluations: Evaluations = field(default_factory=Evaluations)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def thinking(self) -> str | None:
        """The thought before the picture (with `thinking=True`)."""
        return self.text

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the picture in one step; UserError for an unknown file type or a result without pixels."""
        if self.image is None:
            raise UserError("this result holds codes only; decode_codes makes a picture of them")
        return save_image(self.image, path)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels."""
        size = None if self.image is None else {"width": self.image.width, "height": self.image.height}
        return {
            "prompt": self.prompt,
            "text": self.text,
            "seed": self.seed,
            "size": size,
            "codes": self.codes.to_json(),
            "evaluations": self.evaluations.to_json(),
            "seconds": _rounded(self.seconds),
        }


@dataclass(frozen=True)
class TextResult:
    """Words the model wrote. finished: it ended by itself or at a stop string, and was not cut at the largest length."""

    text: str
    seed: int
    finished: bool = True
    evaluations: Evaluations = field(default_factory=Evaluations)
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "seed": self.seed,
            "finished": self.finished,
            "evaluations": self.evaluations.to_json(),
            "seconds": _rounded(self.seconds),
        }


@dataclass(frozen=True)
class TextEvent:
    """A finished stretch of words in an interleaved answer. tokens: how many the model wrote."""

    text: str
    tokens: int


@dataclass(frozen=True)
class ImageEvent:
    """A finished picture in an interleaved answer. number: from 1; repaired: why its header had to be
    mended, or None.
    """

    image: Image.Image | None
    codes: ImageCodes
    number: int
    repaired: str | None = None


@dataclass(frozen=True)
class EndEvent:
    """The end of an interleaved answer. reason: "finished" (end of text), "stop" (a stop string), "frames", "length" or
    "context".
    """

    reason: str
    seed: int
    evaluations: Evaluations
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "seed": self.seed,
            "evaluations": self.evaluations.to_json(),
            "seconds": _rounded(self.seconds),
        }


Event = TextEvent | ImageEvent | EndEvent


@dataclass(frozen=True)
class ChatResult:
    """An answer in a conversation: words and pictures in order."""

    parts: tuple[str | ImageEvent, ...]
    end: EndEvent

    @property
    def text(self) -> str:
        return " ".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        return [part.image for part in self.parts if isinstance(part, ImageEvent) and part.image is not None]

    def to_json(self) -> dict[str, Any]:
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "codes": part.codes.to_json()}
            for part in self.parts
        ]
        return {"parts": parts, **self.end.to_json()}


def image_format(path: str | os.PathLike[str]) -> str:
    """PIL's name of the format of a file name; UserError for a name without a known ending."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UserError(f"cannot save a picture as {Path(path).name}: the name must end with {', '.join(FORMATS)}")
    return FORMATS[ending]


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Writes a picture in one step: a reader sees no half file."""
    from llada_uni.files.weights import atomic_file

    path, name = Path(path), image_format(path)
    if path.is_dir():
        raise UserError(f"{path} is a directory, a file name was expected")
    try:
        with atomic_file(path) as temporary:
            image.save(temporary, format=name)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from error
    return path


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}
