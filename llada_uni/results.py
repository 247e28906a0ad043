"""Every result and every event of the package: images, codes and text, with the seed and the work that went into them.

Tasks give results (`ImageResult`, `TextResult`, `ChatResult`), or events as an answer comes into being. All are small
frozen records without tensors, which a program can read (`to_json`) and a person can save (`save`). The steps of the
engine itself, in token ids, are `generation.settings.StepEvent`; tasks turn them into `Progress`.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes

Stage = Literal["text", "codes", "decode"]
STAGES: dict[Stage, str] = {"text": "writing", "codes": "drawing codes", "decode": "decoding"}  # for people
# Why an answer ended: end of text, a stop string, as many images as were allowed, max_tokens, or the context is full.
EndReason = Literal["finished", "stop", "frames", "length", "context"]
NO_CODE = -1  # in place of a code that is not proposed yet
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
class Usage:
    """Tokens of a request, as OpenAI counts them. prompt_tokens: of the request, the codes of its images included;
    completion_tokens: text written and codes drawn; images: how many were drawn. *_image_tokens: those that are codes.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    prompt_image_tokens: int = 0
    completion_image_tokens: int = 0

    @classmethod
    def together(cls, usages: Sequence[Usage]) -> Usage:
        """Of all results of one request; the prompt, which they share, counts once."""
        made, codes, images = (
            sum(getattr(usage, name) for usage in usages) for name in ("completion_tokens", "completion_image_tokens", "images")
        )
        return cls(usages[0].prompt_tokens, made, images, usages[0].prompt_image_tokens, codes)

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


# --- what happens while a task runs ---


@dataclass(frozen=True)
class Progress:
    """One step of a running task.

    stage: "text", "codes" (an image as codes) or "decode" (codes to pixels); done of total: positions filled or decoder
    evaluations made (the total of text is the most it may become). text: characters that have become certain and are
    never taken back; those of one stretch, put together, are its text.

    In the stage "codes", grid is (rows, columns), and codes, accepted and confidences have a value for every position of
    it, row by row: the code that stands there now (`NO_CODE`: none yet), whether it is final, and how sure the model was
    (0 where there is none). They are empty in the other stages.
    """

    stage: Stage
    done: int
    total: int
    text: str = ""
    grid: tuple[int, int] | None = None
    codes: tuple[int, ...] = ()
    accepted: tuple[bool, ...] = ()
    confidences: tuple[float, ...] = ()


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class TextDelta:
    """The next characters of a stream: `Progress.text` where steps may be passed over. reasoning: they belong to the
    reasoning text before an image, not to the answer.
    """

    text: str
    reasoning: bool = False


@dataclass(frozen=True)
class PartialImage:
    """An image of proposed codes, decoded cheaply on the way. index: from 0, counted for each image."""

    index: int
    image: Image.Image


# --- what is finished ---


@dataclass(frozen=True)
class DrawnImage:
    """An image of ours, alone or in an answer. pixels: RGB, or None when only codes were asked for; codes: the grid of them."""

    pixels: Image.Image | None
    codes: ImageCodes

    @property
    def image(self) -> Image.Image:
        """The pixels. UserError when only codes were asked for (decoder "none")."""
        if self.pixels is None:
            raise UserError("this result holds codes only; decode_codes makes an image of them")
        return self.pixels

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows."""
        return None if self.pixels is None else _png(self.pixels)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the image in one step; UserError for an unknown file type or a result without pixels."""
        return save_image(self.image, path)


@dataclass(frozen=True)
class Candidate:
    """One of several drawings of a request (`n_best`). seed: its own; score: log-odds that it is what was asked for, by the
    model's own judgment.
    """

    seed: int
    score: float
    codes: ImageCodes = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the codes."""
        return {"seed": self.seed, "score": round(self.score, 4)}


@dataclass(frozen=True)
class ImageResult(DrawnImage):
    """An image the model drew.

    prompt: what was asked; text: the reasoning text before it, or None; seed: gives the same result again on the same
    machine; seconds: by stage; notices: what was done to the images given that the caller did not ask for; candidates: with
    `n_best`, all that were drawn, in order (this image is that of the largest score).
    """

    prompt: str
    seed: int
    text: str | None = None
    evaluations: Evaluations = field(default_factory=Evaluations)
    seconds: dict[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    @property
    def thinking(self) -> str | None:
        """The reasoning text before the image (with `thinking=True`)."""
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels."""
        size = None if self.pixels is None else {"width": self.pixels.width, "height": self.pixels.height}
        return {
            "prompt": self.prompt,
            "text": self.text,
            "seed": self.seed,
            "size": size,
            "codes": self.codes.to_json(),
            "evaluations": self.evaluations.to_json(),
            "seconds": _rounded(self.seconds),
            "notices": list(self.notices),
            **({"candidates": [one.to_json() for one in self.candidates]} if self.candidates else {}),
        }


@dataclass(frozen=True)
class TextResult:
    """Text the model wrote. finished: it ended by itself or at a stop string, and was not cut at the largest length."""

    text: str
    seed: int
    finished: bool = True
    evaluations: Evaluations = field(default_factory=Evaluations)
    seconds: dict[str, float] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _shown([self.text])

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
    """A finished stretch of text in an interleaved answer. tokens: how many the model wrote."""

    text: str
    tokens: int

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _shown([self.text])


@dataclass(frozen=True)
class ImageEvent(DrawnImage):
    """A finished image of an answer.

    number: from 1; repaired: why its header had to be mended, or None; seed: gives the same again; reasoning: the text
    before it, or None; notices, candidates: as in `ImageResult`.
    """

    number: int
    repaired: str | None = None
    seed: int = 0
    reasoning: str | None = None
    notices: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class EndEvent:
    """The end of an answer. seed, evaluations, usage: of all of it; seconds: by stage, and in "total"."""

    reason: EndReason
    seed: int = 0
    evaluations: Evaluations = field(default_factory=Evaluations)
    seconds: dict[str, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    def to_json(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "seed": self.seed,
            "evaluations": self.evaluations.to_json(),
            "seconds": _rounded(self.seconds),
        }


Event = TextEvent | ImageEvent | EndEvent  # of an interleaved answer in Python
StreamEvent = Progress | TextDelta | PartialImage | ImageEvent | EndEvent  # of a job of a server


@dataclass(frozen=True)
class ChatResult:
    """An answer in a conversation: text and images in order."""

    parts: tuple[str | ImageEvent, ...]
    end: EndEvent

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _shown(self.parts)

    @property
    def text(self) -> str:
        return " ".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        return [part.pixels for part in self.parts if isinstance(part, ImageEvent) and part.pixels is not None]

    def to_json(self) -> dict[str, Any]:
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "codes": part.codes.to_json()}
            for part in self.parts
        ]
        return {"parts": parts, **self.end.to_json()}


# --- image files ---


def image_format(path: str | os.PathLike[str]) -> str:
    """PIL's name of the format of a file name; UserError for a name without a known ending."""
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise UserError(f"a file's name is a string or a path without null characters, not {path!r}")
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UserError(f"cannot save an image as {Path(path).name}: the name must end with {', '.join(FORMATS)}")
    return FORMATS[ending]


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Writes an image in one step: a reader sees no half file."""
    from llada_uni.files.weights import atomic_file

    name = image_format(path)
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a directory, a file name was expected")
    try:
        with atomic_file(path) as temporary:
            image.save(temporary, format=name)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from error
    return path


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _shown(parts: Sequence[str | DrawnImage]) -> str:
    """Text and images in order, as HTML; what a model wrote is text there too."""
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(f"<p>{html.escape(part)}</p>" if part.strip() else "<p><i>(no text)</i></p>")
        elif part.pixels is None:
            out.append(f"<p><i>({part.codes.height} x {part.codes.width} codes)</i></p>")
        else:
            out.append(f'<p><img src="data:image/png;base64,{base64.b64encode(_png(part.pixels)).decode()}"></p>')
    return "\n".join(out)


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}
