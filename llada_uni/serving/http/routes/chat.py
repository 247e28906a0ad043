"""POST /v1/chat/completions: conversations about images, and answers that hold some.

A body becomes a `Chat` (text) or a `Story` (text and images), which runs n times with seeds one after the other. What
comes back is a `ChatCompletion`, or chunks as the text is accepted.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from PIL import Image

from llada_uni.requests import Chat, Story, Understand
from llada_uni.results import EndEvent, EndReason, ImageEvent, PartialImage, TextDelta, Usage
from llada_uni.serving.http import sse
from llada_uni.serving.http.protocol.chat import (
    AnswerImage,
    AnswerMessage,
    AnswerText,
    AnswerUrl,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChatUsage,
    Choice,
    ChunkChoice,
    Delta,
    ImagePart,
)
from llada_uni.serving.http.protocol.common import check_count, draw_seed
from llada_uni.serving.http.protocol.progress import ChatPartialImageEvent, ProgressEvent
from llada_uni.serving.http.routes.bodies import JsonRoute
from llada_uni.serving.http.routes.context import Context, Here
from llada_uni.serving.http.routes.pictures import as_base64, open_pictures
from llada_uni.serving.http.routes.running import arriving, outcomes, stream
from llada_uni.serving.scheduler.job import Outcome

router = APIRouter(route_class=JsonRoute)
# Ours -> OpenAI's. A limit on images is a limit on length.
REASONS: dict[EndReason, Literal["stop", "length"]] = {
    "finished": "stop", "stop": "stop", "length": "length", "context": "length", "frames": "length",
}  # fmt: skip


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=sse.STREAMED, tags=["chat"])
async def create_chat_completion(body: ChatRequest, request: Request, here: Here) -> Any:
    """The next answer of a conversation, in words, or (modalities) in words and pictures."""
    here.check_model(body.model)
    body.check()
    seed = draw_seed() if body.seed is None else body.seed
    count = check_count(body.n, here.limits.max_n, seed)
    asked = await _asked(body, here)
    each = [asked.replace(seed=seed + number) for number in range(count)]
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": here.options.model_name,
        "system_fingerprint": here.fingerprint,
        "seed": seed,
    }
    if body.stream:
        return await stream(here, request, _messages(body, here, request, each, answer))
    done = await outcomes(here, request, each)
    choices = [await _choice(number, outcome) for number, outcome in enumerate(done)]
    return ChatCompletion(**answer, choices=choices, usage=_usage([outcome.end.usage for outcome in done]))


# --- from the body to a request ---


async def _asked(body: ChatRequest, here: Context) -> Chat | Story:
    messages = await _conversation(body, here)
    if body.images_wanted:
        return Story(messages=messages, **body.given(Story) | _length(body))
    return Chat(messages=messages, modalities=("text",), **body.given(Understand) | _length(body))


def _length(body: ChatRequest) -> dict[str, int]:
    return {} if body.most_tokens is None else {"max_tokens": body.most_tokens}


async def _conversation(body: ChatRequest, here: Context) -> list[dict[str, Any]]:
    """The messages as requests take them, their images opened."""
    sources = [
        (f"messages[{number}].content[{place}].image_url", part.image_url.url)
        for number, message in enumerate(body.messages)
        if not isinstance(message.content, str)
        for place, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    images = iter(await open_pictures(here, sources))
    messages = []
    for message in body.messages:
        role = "system" if message.role == "developer" else message.role
        content: list[str | Image.Image] = []
        for part in [message.content] if isinstance(message.content, str) else message.content:
            if isinstance(part, ImagePart):
                content.append(next(images))
            else:
                content.append(part if isinstance(part, str) else part.text)
        messages.append({"role": role, "content": content})
    return messages


# --- from outcomes to an answer at once ---


async def _choice(number: int, outcome: Outcome) -> Choice:
    content: str | list[AnswerText | AnswerImage] = outcome.text
    if outcome.images:
        content = [AnswerText(text=part) if isinstance(part, str) else await _image(part) for part in outcome.parts]
    message = AnswerMessage(content=content, reasoning_content=outcome.reasoning)
    return Choice(index=number, message=message, finish_reason=REASONS[outcome.end.reason])


async def _image(picture: ImageEvent) -> AnswerImage:
    return AnswerImage(image_url=AnswerUrl(url=f"data:image/png;base64,{await as_base64(picture.image)}"))


def _usage(usages: Sequence[Usage]) -> ChatUsage:
    total = Usage.together(usages)
    return ChatUsage(
        prompt_tokens=total.prompt_tokens, completion_tokens=total.completion_tokens, total_tokens=total.total_tokens
    )


# --- from events to a stream ---


async def _messages(
    body: ChatRequest, here: Context, request: Request, each: Sequence[Chat | Story], answer: dict[str, Any]
) -> sse.Messages:
    def chunk(number: int, delta: Delta, reason: Literal["stop", "length"] | None = None) -> bytes:
        choice = ChunkChoice(index=number, delta=delta, finish_reason=reason)
        return sse.message(ChatChunk(**answer, choices=[choice]), without_nulls=True)

    usages: list[Usage] = []
    begun: set[int] = set()
    async with contextlib.aclosing(arriving(here, request, each, body.partial_images or 0)) as events:
        async for item in events:
            if item is None:
                yield sse.PING
                continue
            number, event = item
            if number not in begun:
                begun.add(number)
                yield chunk(number, Delta(role="assistant", content=""))
            if isinstance(event, TextDelta | ImageEvent):
                yield chunk(number, await _delta(event))
            elif isinstance(event, EndEvent):
                usages.append(event.usage)
                yield chunk(number, Delta(), REASONS[event.reason])
            elif isinstance(event, PartialImage):
                yield await _partial(number, event)
            elif body.progress:
                yield sse.message(ProgressEvent.of(number, event), "llada.progress")
    if body.stream_options is not None and body.stream_options.include_usage:
        yield sse.message(ChatChunk(**answer, choices=[], usage=_usage(usages)), without_nulls=True)
    yield sse.DONE


async def _delta(event: TextDelta | ImageEvent) -> Delta:
    if isinstance(event, ImageEvent):
        return Delta(content=[await _image(event)])
    return Delta(reasoning_content=event.text) if event.reasoning else Delta(content=event.text)


async def _partial(number: int, event: PartialImage) -> bytes:
    data = await as_base64(event.image)
    partial = ChatPartialImageEvent(index=number, partial_image_index=event.index, b64_json=data)
    return sse.message(partial, "llada.partial_image")
