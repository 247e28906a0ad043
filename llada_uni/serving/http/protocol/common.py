"""What the bodies of all requests share: strict fields, settings of generation, sizes, the form of errors.

What flows through: parsed JSON or form fields -> pydantic models -> typed values for `serving.tasks`. Names, types and
meanings of OpenAI's fields are OpenAI's; ours are described where they are declared (and so in /openapi.json).
"""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.tasks import Sampling

LARGEST_SEED = 2**63 - 1
_SIZE = r"[1-9][0-9]{0,5}x[1-9][0-9]{0,5}"


def _check_size(size: str) -> str:
    if size != "auto" and not re.fullmatch(_SIZE, size):
        raise ValueError('must be "WIDTHxHEIGHT" in pixels, or "auto"')
    return size


def unsupported(reason: str, *neutral: Any) -> Any:
    """The type of a field that OpenAI's API has and this server does not: only null and the `neutral` values pass."""

    def check(value: Any) -> Any:
        if value is not None and value not in neutral:
            raise ValueError(f"is not supported: {reason}")
        return value

    schema = {"enum": [None, *neutral], "description": f"Not supported: {reason}."}
    return Annotated[Any, PlainValidator(check), WithJsonSchema(schema)]


Rule = Literal["threshold", "left", "adaptive", "entropy", "factor", "sprint"]
Confidence = Literal["probability", "margin", "entropy", "neg_entropy", "random"]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0, le=100)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Size = Annotated[str, AfterValidator(_check_size), Field(json_schema_extra={"pattern": f"^(auto|{_SIZE})$"})]
Ignored = Annotated[str | None, Field(description="Accepted, without effect.")]


class Body(BaseModel):
    """A request body. Unknown fields and values of another type are errors, not guesses."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SprintBody(Body):
    """How SPRINT prunes the prefix (generation/sprint.py): shares that are kept, and the weight of the key norm.

    With `keep_ratio`: as published; else as the report has it.
    """

    r: Share | None = None
    r_text: Share | None = None
    r_img: Share | None = None
    alpha: Share | None = None
    keep_ratio: Share | None = None
    warmup: Annotated[int, Field(ge=1, le=4096)] | None = None
    image_keep_ratio: Share | None = None
    text_keep_ratio: Share | None = None


class Settings(Body):
    """Settings of block diffusion that every task takes. None: the model directory's own default."""

    steps: Count | None = Field(default=None, description="Unmasking steps a block.")
    threshold: Share | None = Field(default=None, description="Drafts surer than this are accepted at once.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(default=None, description="0 is greedy.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10**6)] | None = Field(default=None, description="0 is off.")
    rule: Rule | None = Field(default=None, description="Which drafts a step accepts (generation/unmasking.py).")
    confidence: Confidence | None = Field(default=None, description="How sure a draft is (generation/sampling.py).")
    sprint: SprintBody | None = Field(default=None, description="Prune the prefix; null: do not.")
    block_length: Annotated[int, Field(ge=1, le=4096)] | None = Field(default=None, description="Places a block.")

    def sampling(self) -> Sampling:
        sprint = None if self.sprint is None else self.sprint.model_dump(exclude_none=True)
        return Sampling(
            self.threshold, self.temperature, self.top_k, self.top_p, self.rule, self.confidence, sprint, self.block_length
        )


class Painting(Settings):
    """Settings of every request whose answer may be pictures, or a stream."""

    stream: bool | None = Field(default=None, description="Answer with server-sent events as the work goes on.")
    progress: bool | None = Field(default=None, description="With stream: also an event after each step.")
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        default=None, description="With stream: drafts of each picture on the way."
    )
    decoder: Literal["turbo", "base"] | None = Field(default=None, description="turbo is distilled, base is guided.")
    decoder_steps: Annotated[int, Field(ge=1, le=1000)] | None = None

    @property
    def drafts(self) -> int:
        return self.partial_images or 0

    def painting(self) -> dict[str, Any]:
        """What every task that paints takes of these settings."""
        return {
            "steps": self.steps,
            "decoder": self.decoder,
            "decoder_steps": self.decoder_steps,
            "drafts": self.drafts,
            "sampling": self.sampling(),
        }

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
