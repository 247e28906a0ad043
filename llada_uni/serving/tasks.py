"""What a service can be asked for, as plain typed records without tensors: a client of `Service` builds one of these.

What flows through: a checked HTTP body -> Draw, Edit, Inpaint, Chat or Interleaved -> `Service.submit`. None means the
model directory's own default everywhere; the tasks themselves check the values (`UserError`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from llada_uni.errors import UserError

MOST_DRAFTS = 3  # partial pictures of one picture (OpenAI's limit)


@dataclass(frozen=True)
class Sampling:
    """How masks are filled (generation.settings.Settings); sprint: {"r": 0.5, "r_text": ..., "r_img": ..., "alpha": ...}."""

    threshold: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    rule: str | None = None
    confidence: str | None = None
    sprint: Mapping[str, float | None] | None = None
    block_length: int | None = None

    def given(self) -> dict[str, Any]:
        """The settings that are not None, by name: keywords for the calls of `UniModel`."""
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value for name, value in fields if value is not None}


@dataclass(frozen=True)
class Message:
    """What one side of a conversation said: role "system", "user" or "assistant", words and pictures in order."""

    role: str
    parts: tuple[str | Image.Image, ...]


@dataclass(frozen=True)
class _Painted:
    """What every task that gives pictures can be told. drafts: partial pictures sent on the way, 0 to 3."""

    seed: int | None = None
    steps: int | None = None
    decoder: str | None = None
    decoder_steps: int | None = None
    drafts: int = 0
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if not 0 <= self.drafts <= MOST_DRAFTS:
            raise UserError(f"a picture has 0 to {MOST_DRAFTS} partial pictures, not {self.drafts}")


@dataclass(frozen=True, kw_only=True)
class Draw(_Painted):
    """A picture of words (`UniModel.generate_image`)."""

    prompt: str
    height: int | None = None
    width: int | None = None
    thinking: bool = False
    cfg_scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Edit(_Painted):
    """Pictures changed as words say (`UniModel.edit_image`)."""

    images: tuple[Image.Image, ...]
    instruction: str
    height: int | None = None
    width: int | None = None
    text_scale: float | None = None
    image_scale: float | None = None
    rescale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Inpaint(_Painted):
    """The white part of a mask filled (`UniModel.inpaint`); the mask has the size of the picture."""

    image: Image.Image
    mask: Image.Image
    prompt: str
    cfg_scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chat:
    """The next answer of a conversation in words alone (`UniModel.chat` with modalities ("text",)).

    stop: strings that end the answer and are not part of it.
    """

    turns: tuple[Message, ...]
    max_tokens: int | None = None
    steps: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True, kw_only=True)
class Interleaved(_Painted):
    """Words and pictures in turn (`UniModel.interleave`).

    steps: of pictures; sampling: of words and pictures alike; max_tokens: of each stretch of words.
    """

    turns: tuple[Message, ...]
    max_frames: int | None = None
    height: int | None = None
    width: int | None = None
    text_scale: float | None = None
    image_scale: float | None = None
    rescale: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


Task = Draw | Edit | Inpaint | Chat | Interleaved
