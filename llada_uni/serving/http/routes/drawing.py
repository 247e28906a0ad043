"""Images as answers: what /v1/images/generations and /v1/images/edits do alike.

A request that draws runs n times, with seeds one after the other. Its images become an `ImagesResponse`, or a stream of
partial and finished images under OpenAI's names for the kind of request.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import Request
from PIL import Image

from llada_uni.requests import Draw, Edit, Inpaint
from llada_uni.results import EndEvent, ImageEvent, PartialImage, Progress, TextDelta, Usage
from llada_uni.serving.http import sse
from llada_uni.serving.http.protocol.common import check_count, draw_seed
from llada_uni.serving.http.protocol.images import (
    CandidateItem,
    CompletedEvent,
    EditFields,
    GenerationRequest,
    ImageItem,
    ImagesResponse,
    ImagesUsage,
    PartialImageEvent,
)
from llada_uni.serving.http.protocol.progress import ProgressEvent, ThinkingEvent
from llada_uni.serving.http.routes.bodies import warnings_of
from llada_uni.serving.http.routes.context import Context
from llada_uni.serving.http.routes.pictures import as_base64
from llada_uni.serving.http.routes.running import arriving, outcomes, stream
from llada_uni.serving.scheduler.job import Outcome

Kind = Literal["image_generation", "image_edit"]
Body = GenerationRequest | EditFields
PARTIAL: dict[Kind, Literal["image_generation.partial_image", "image_edit.partial_image"]] = {
    "image_generation": "image_generation.partial_image", "image_edit": "image_edit.partial_image",
}  # fmt: skip
COMPLETED: dict[Kind, Literal["image_generation.completed", "image_edit.completed"]] = {
    "image_generation": "image_generation.completed", "image_edit": "image_edit.completed",
}  # fmt: skip


async def draw(
    here: Context, request: Request, body: Body, asked: Draw | Edit | Inpaint, kind: Kind
) -> ImagesResponse | sse.EventStream:
    """The images that a request gives with n seeds, at once or as a stream."""
    seed = draw_seed() if body.seed is None else body.seed
    count = check_count(body.n, here.limits.max_n, seed)
    each = [asked.replace(seed=seed + number) for number in range(count)]
    if body.stream:
        return await stream(here, request, _messages(here, request, body, each, kind))
    done = await outcomes(here, request, each)
    return ImagesResponse(
        warnings=warnings_of(request) or None,
        created=int(time.time()),
        data=[await _item(body, outcome) for outcome in done],
        model=here.options.model_name,
        system_fingerprint=here.fingerprint,
        output_format=body.format,
        size=_size(done[0].images[0].image),
        usage=ImagesUsage.of([outcome.end.usage for outcome in done]),
    )


async def _item(body: Body, outcome: Outcome) -> ImageItem:
    picture = outcome.images[0]
    data = await as_base64(picture.image, body.format, body.output_compression)
    return ImageItem(b64_json=data, revised_prompt=body.prompt, **_about(picture))


def _about(picture: ImageEvent) -> dict[str, Any]:
    """What an answer says of a picture, null where there is nothing to say."""
    candidates = [CandidateItem(**one.to_json()) for one in picture.candidates]
    return {
        "seed": picture.seed,
        "thinking": picture.reasoning,
        "notices": list(picture.notices) or None,
        "candidates": candidates or None,
    }


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


async def _messages(
    here: Context, request: Request, body: Body, each: Sequence[Draw | Edit | Inpaint], kind: Kind
) -> sse.Messages:
    pictures: dict[int, ImageEvent] = {}
    async with contextlib.aclosing(arriving(here, request, each, body.partial_images or 0)) as events:
        async for item in events:
            if item is None:
                yield sse.PING
                continue
            number, event = item
            if isinstance(event, ImageEvent):
                pictures[number] = event
            elif isinstance(event, PartialImage):
                yield await _partial(body, kind, number, event)
            elif isinstance(event, EndEvent):
                yield await _completed(body, kind, number, pictures.pop(number), event.usage, warnings_of(request) or None)
            elif body.progress and isinstance(event, Progress):
                yield sse.message(ProgressEvent.of(number, event), "llada.progress", f"{event.stage} {number}")
            elif body.progress and isinstance(event, TextDelta):
                yield sse.message(ThinkingEvent(index=number, delta=event.text), "llada.thinking")


async def _partial(body: Body, kind: Kind, number: int, event: PartialImage) -> bytes:
    partial = PartialImageEvent(
        type=PARTIAL[kind],
        index=number,
        created_at=int(time.time()),
        b64_json=await as_base64(event.image, body.format, body.output_compression),
        output_format=body.format,
        size=_size(event.image),
        partial_image_index=event.index,
    )
    return sse.message(partial, partial.type, f"partial {number}")


async def _completed(
    body: Body, kind: Kind, number: int, picture: ImageEvent, usage: Usage, warnings: list[str] | None
) -> bytes:
    completed = CompletedEvent(
        warnings=warnings,
        type=COMPLETED[kind],
        index=number,
        created_at=int(time.time()),
        b64_json=await as_base64(picture.image, body.format, body.output_compression),
        output_format=body.format,
        size=_size(picture.image),
        revised_prompt=body.prompt,
        **_about(picture),
        usage=ImagesUsage.of([usage]),
    )
    return sse.message(completed, completed.type)
