"""Bodies of /v1/images/generations and /v1/images/edits: what to draw, pictures as base64, events of a stream.

JSON, or the fields of a form -> `GenerationRequest`, `EditRequest`; finished pictures ->
`ImagesResponse`, or partial and finished ones as events.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from llada_uni.requests import Draw, Edit, Inpaint
from llada_uni.serving.http.protocol.common import Body, Ignored, Size, Streaming, Unsupported, Warned
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.protocol.settings import SettingsBody, optional_fields, takes
from llada_uni.serving.http.protocol.usage import TokenUsage

OnlyBase64 = Annotated[
    Any, Unsupported("pictures come as b64_json; this server keeps no files that a URL could name", "b64_json")
]
OnlyOpaque = Annotated[Any, Unsupported("pictures have no transparent background", "auto", "opaque")]

# --- the requests ---


class _ImagesRequest(SettingsBody, Streaming):
    """What drawing and editing are told alike."""

    prompt: str
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Pictures; picture i has the seed plus i.")
    size: Size | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = Field(default=None, description="Default: png.")
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Quality of jpeg and webp; default: 95."
    )
    response_format: OnlyBase64 = None
    background: OnlyOpaque = None
    quality: Ignored = None
    moderation: Ignored = None
    user: Ignored = None
    safety_identifier: Ignored = None

    @property
    def format(self) -> Literal["png", "jpeg", "webp"]:
        return self.output_format or "png"

    def check(self) -> None:
        """What several fields must agree on. Raises ApiError."""
        self.check_streaming()
        check_compression(self.output_format, self.output_compression)


def check_compression(output_format: str | None, compression: int | None, field: str = "output_compression") -> None:
    """ApiError for a quality of a format that has none."""
    if compression is not None and output_format in (None, "png"):
        raise ApiError(400, "output_compression is for jpeg and webp: a png keeps every pixel as it is", field)


@takes(Draw)
class GenerationRequest(_ImagesRequest):
    """Images of what the prompt says."""


def _kind_of_reference(value: Any) -> str | None:
    return "<uri>" if isinstance(value, str) else "<object>" if isinstance(value, dict) else None


class ImageReference(Body):
    """OpenAI's form of a picture in JSON."""

    image_url: str


Reference = Annotated[
    Annotated[str, Tag("<uri>")] | Annotated[ImageReference, Tag("<object>")],
    Discriminator(
        _kind_of_reference,
        custom_error_type="reference",
        custom_error_message='must be a data URI, or {"image_url": a data URI}',
    ),
]


@takes(Edit, Inpaint)
class EditFields(_ImagesRequest):
    """What to change. With a mask the masked part is drawn again so that the whole becomes what the prompt says."""

    mask_mode: Literal["alpha", "white"] | None = Field(
        default=None, description='Which pixels of the mask are drawn again: "alpha" the transparent ones, or "white".'
    )
    input_fidelity: Ignored = None

    def check_mask(self, mask: bool, pictures: int) -> None:
        """What an edit with a mask, or one without, cannot be told. Raises ApiError."""
        if mask and pictures > 1:
            raise ApiError(400, f"a mask goes with one picture; {pictures} were given", "mask")
        if mask and self.size not in (None, "auto"):
            raise ApiError(400, "size is that of the picture when a mask is given: leave it out", "size")
        edit, inpaint = (list(optional_fields(kind)) for kind in (Edit, Inpaint))
        for name in edit if mask else (*inpaint, "mask_mode"):
            if name not in (inpaint if mask else edit) and getattr(self, name) is not None:
                with_mask = ", ".join(other for other in inpaint if other not in edit)
                where = f"without a mask; with one it is {with_mask}" if mask else "with a mask"
                raise ApiError(400, f"{name} is for edits {where}", name)


class EditRequest(EditFields):
    """The same as JSON: pictures and mask as data URIs."""

    image: Reference | None = None
    images: list[Reference] | None = Field(default=None, min_length=1)
    mask: Reference | None = None


# --- the answers ---


class ImagesUsage(TokenUsage):
    """Tokens: text and codes."""


class CandidateItem(BaseModel):
    """One of the drawings that `n_best` asked for. score: log-odds by the model's own judgment."""

    seed: int
    score: float


class ImageItem(BaseModel):
    """seed: gives the same picture again. thinking: the thought before it, where one was asked for. notices: what was done
    to the images given that nobody asked for. candidates: with n_best, all that were drawn; the picture is the best one.
    """

    b64_json: str
    seed: int
    revised_prompt: str
    thinking: str | None = None
    notices: list[str] | None = None
    candidates: list[CandidateItem] | None = None


class ImagesResponse(Warned):
    created: int
    data: list[ImageItem]
    model: str
    system_fingerprint: str
    output_format: Literal["png", "jpeg", "webp"]
    size: str
    background: Literal["opaque"] = "opaque"
    usage: ImagesUsage


class _PictureEvent(BaseModel):
    """index: which of the n pictures this is of, from 0."""

    type: str
    index: int
    created_at: int
    b64_json: str
    output_format: Literal["png", "jpeg", "webp"]
    size: str
    background: Literal["opaque"] = "opaque"
    quality: Literal["auto"] = "auto"


class PartialImageEvent(_PictureEvent):
    type: Literal["image_generation.partial_image", "image_edit.partial_image"]
    partial_image_index: int


class CompletedEvent(_PictureEvent, Warned):
    always = ("thinking", "notices")

    type: Literal["image_generation.completed", "image_edit.completed"]
    seed: int
    revised_prompt: str
    thinking: str | None = None
    notices: list[str] | None = None
    candidates: list[CandidateItem] | None = None
    usage: ImagesUsage
