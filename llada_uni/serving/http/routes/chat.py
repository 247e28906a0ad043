"""POST /v1/chat/completions: conversations about pictures, and answers that hold some.

What flows through: `ChatRequest` -> `Chat` (words) or `Interleaved` (words and pictures), n of them with seeds one after
the other -> a `ChatCompletion`, or chunks as the words settle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request
from PIL import Image

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
from llada_uni.serving.http.protocol.common import check_count, draw_seed, read_size
from llada_uni.serving.http.protocol.progress import ChatPartialImageEvent, ProgressEvent
from llada_uni.serving.http.routes.bodies import JsonRoute
from llada_uni.serving.http.routes.context import Context, Here
from llada_uni.serving.http.routes.pictures import as_base64, open_pictures
from llada_uni.serving.http.routes.running import arriving, outcomes, stream
from llada_uni.serving.scheduler.job import Outcome
from llada_uni.serving.tasks import Chat, Interleaved, Message

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
    task = _task(body, await _turns(body, here), seed)
    tasks = [dataclasses.replace(task, seed=seed + number) for number in range(count)]
    answer = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": here.options.model_name,
        "system_fingerprint": here.fingerprint,
        "seed": seed,
    }
    if body.stream:
        return await stream(here, request, _messages(body, here, request, tasks, answer))
    done = await outcomes(here, request, tasks)
    choices = [await _choice(number, outcome) for number, outcome in enumerate(done)]
    return ChatCompletion(**answer, choices=choices, usage=_usage([outcome.end.usage for outcome in done]))


# --- from the body to a task ---


async def _turns(body: ChatRequest, here: Context) -> tuple[Message, ...]:
    """The messages with their pictures opened."""
    sources = [
        (f"messages[{number}].content[{place}].image_url", part.image_url.url)
        for number, message in enumerate(body.messages)
        if not isinstance(message.content, str)
        for place, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    pictures = iter(await open_pictures(here, sources))
    turns = []
    for message in body.messages:
        role = "system" if message.role == "developer" else message.role
        parts: list[str | Image.Image] = []
        for part in [message.content] if isinstance(message.content, str) else message.content:
            if isinstance(part, ImagePart):
                parts.append(next(pictures))
            else:
                parts.append(part if isinstance(part, str) else part.text)
        turns.append(Message(role, tuple(parts)))
    return tuple(turns)


def _task(body: ChatRequest, turns: tuple[Message, ...], seed: int) -> Chat | Interleaved:
    shared = {"turns": turns, "max_tokens": body.most_tokens, "stop": body.stops, "seed": seed}
    if not body.pictures_wanted:
        return Chat(**shared, steps=body.steps, sampling=body.sampling())
    height, width = read_size(body.size)
    return Interleaved(
        **shared,
        **body.painting(),
        max_frames=body.max_frames,
        height=height,
        width=width,
        text_scale=body.text_scale,
        image_scale=body.image_scale,
        rescale=body.rescale,
    )


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
    body: ChatRequest, here: Context, request: Request, tasks: Sequence[Chat | Interleaved], answer: dict[str, Any]
) -> sse.Messages:
    def chunk(number: int, delta: Delta, reason: str | None = None) -> bytes:
        choice = ChunkChoice(index=number, delta=delta, finish_reason=reason)
        return sse.message(ChatChunk(**answer, choices=[choice]), without_nulls=True)

    usages: list[Usage] = []
    begun: set[int] = set()
    async with contextlib.aclosing(arriving(here, request, tasks)) as events:
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
