"""What the bodies of all requests share: strict fields, streams, sizes, counts, and fields that are not supported.

Names, types and meanings of OpenAI's fields are OpenAI's; settings of generation are derived (settings.py).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import CoreSchema, core_schema

from llada_uni.generation.params import LARGEST_SEED
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.scheduler.job import MOST_PARTIALS

_SIZE = r"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}"


def _check_size(size: str) -> str:
    if size != "auto" and not re.fullmatch(_SIZE, size):
        raise ValueError('must be "WIDTHxHEIGHT" in pixels, or "auto"')
    return size


def word_or(tag: str, kind: type[BaseModel]) -> Callable[[Any], str | None]:
    """For the discriminator of a word ("<word>") or an object of `kind` (`tag`): which of them a value is, None for neither."""
    return lambda value: "<word>" if isinstance(value, str) else tag if isinstance(value, dict | kind) else None


class NotSupported(ValueError):
    """What pydantic is told of a field that the server does not have."""


class Unsupported:
    """Metadata of a field that OpenAI's API has and this server does not: only null and the `neutral` values pass."""

    def __init__(self, reason: str, *neutral: Any) -> None:
        self.reason, self.neutral = reason, neutral

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [None, *self.neutral], "description": f"Not supported: {self.reason}."}

    def _check(self, value: Any) -> Any:
        if value is not None and value not in self.neutral:
            raise NotSupported(f"is not supported: {self.reason}")
        return value


Size = Annotated[str, AfterValidator(_check_size), Field(json_schema_extra={"pattern": f"^(auto|{_SIZE})$"})]
Ignored = Annotated[str | None, Field(description="Accepted, without effect.")]


class Body(BaseModel):
    """A request body. Unknown fields and values of another type are errors, not guesses."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class GivenOnly(BaseModel):
    """A part of an answer whose fields stand in it only where they say something; `always` names those that always do."""

    always: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """That of the fields: the serializer only leaves out some."""
        return handler({name: part for name, part in schema.items() if name != "serialization"})  # type: ignore[arg-type]

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None or name in self.always}


class Warned(GivenOnly):
    """An answer to a request. warnings: fields that a lenient server left out of it."""

    warnings: list[str] | None = None


class Streaming(Body):
    """Fields of every request whose answer may be a stream, or images."""

    stream: bool | None = Field(default=None, description="Answer with server-sent events as the work goes on.")
    progress: bool | None = Field(default=None, description="With stream: also an event after each step.")
    partial_images: Annotated[int, Field(ge=0, le=MOST_PARTIALS)] | None = Field(
        default=None, description="With stream: images on the way, decoded cheaply, of each image."
    )

    def check_streaming(self, *more: str) -> None:
        """ApiError where something is asked for that only a stream can give; more: further fields of that kind."""
        for name in ("progress", "partial_images", *more):
            if getattr(self, name) and not self.stream:
                raise ApiError(400, f"{name} is for streams: set stream to true", name)


def read_size(size: str | None) -> tuple[int | None, int | None]:
    """(height, width) in pixels; (None, None) where the model is to choose."""
    if size is None or size == "auto":
        return None, None
    width, height = size.split("x")
    return int(height), int(width)


def check_count(n: int | None, most: int, seed: int | None) -> int:
    """How many results are asked for. ApiError for more than `most`, and where their seeds would run out."""
    count = 1 if n is None else n
    if count > most:
        raise ApiError(400, f"n is {count}; this server allows 1 to {most}", "n")
    if seed is not None and seed + count - 1 > LARGEST_SEED:
        raise ApiError(400, "the seed leaves no room for n results: each takes the seed of the one before, plus 1", "seed")
    return count


def draw_seed() -> int:
    """A seed for a request that gives none, so that the answer can name it."""
    return secrets.randbelow(2**31)
