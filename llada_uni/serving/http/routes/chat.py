"""POST /v1/chat/completions: conversations about images, and answers that hold some.

A body becomes a `Chat` (text) or a `Story` (text and images), which runs n times with seeds one after the other. What
comes back is a `ChatCompletion`, or chunks as the text is accepted.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from PIL import Image

from llada_uni.requests import Chat, Story, Understand
from llada_uni.results import EndEvent, EndReason, ImageEvent, PartialImage, TextDelta, Usage
from llada_uni.serving.http import sse
from llada_uni.serving.http.protocol.chat import (
    AnswerBeside,
    AnswerImage,
    AnswerMessage,
    AnswerText,
    AnswerUrl,
    ChatChunk,
    ChatChunkWithUsage,
    ChatCompletion,
    ChatPartialImage,
    ChatProgress,
    ChatRequest,
    ChatUsage,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    ImagePart,
)
from llada_uni.serving.http.protocol.common import check_count, draw_seed
from llada_uni.serving.http.routes.bodies import JsonRoute, warnings_of
from llada_uni.serving.http.routes.context import Context, Here
from llada_uni.serving.http.routes.forms import (
    CallReader,
    call_words,
    callable_functions,
    form_of,
    read_call,
    told_tools,
)
from llada_uni.serving.http.routes.pictures import as_base64, open_pictures
from llada_uni.serving.http.routes.running import arriving, outcomes, stream
from llada_uni.serving.scheduler.job import Outcome

router = APIRouter(route_class=JsonRoute)
# Ours -> OpenAI's. An answer with as many images as it may have is whole: clients take "length" for one that was cut off.
REASONS: dict[EndReason, FinishReason] = {
    "finished": "stop", "stop": "stop", "length": "length", "context": "length", "frames": "stop",
}  # fmt: skip
EMPTY = "the model ended its answer without a word"


@router.post("/v1/chat/completions", response_model=ChatCompletion, responses=sse.STREAMED, tags=["chat"])
async def create_chat_completion(body: ChatRequest, request: Request, here: Here) -> Any:
    """The next answer of a conversation, in words, or (modalities) in words and pictures."""
    here = await here.accept(request, body)
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
    warnings = warnings_of(request) or None
    if body.stream:
        return await stream(here, request, _messages(body, here, request, each, answer, warnings))
    done = await outcomes(here, request, each)
    choices = [await _choice(body, number, outcome) for number, outcome in enumerate(done)]
    return ChatCompletion(**answer, warnings=warnings, choices=choices, usage=_usage([outcome.end.usage for outcome in done]))


# --- from the body to a request ---


async def _asked(body: ChatRequest, here: Context) -> Chat | Story:
    form = form_of(body)
    messages = [*told_tools(callable_functions(body)), *await _conversation(body, here)]
    if body.images_wanted:
        return Story(messages=messages, **body.given(Story) | _length(body))
    return Chat(messages=messages, modalities=("text",), **body.given(Understand) | _length(body) | form)


def _length(body: ChatRequest) -> dict[str, int]:
    return {} if body.most_tokens is None else {"max_tokens": body.most_tokens}


async def _conversation(body: ChatRequest, here: Context) -> list[dict[str, Any]]:
    """The messages as requests take them, their images opened."""
    sources = [
        (f"messages[{number}].{place}.image_url", url)
        for number, message in enumerate(body.messages)
        for place, url in message.image_urls()
    ]
    images = iter(await open_pictures(here, sources))
    messages = []
    for message in body.messages:
        role = {"developer": "system", "tool": "user"}.get(message.role, message.role)
        content: list[str | Image.Image] = []
        for part in message.parts():
            content.append(next(images) if isinstance(part, ImagePart) else part.text)
        messages.append({"role": role, "content": [*content, call_words(message)] if message.tool_calls else content})
    return messages


# --- from outcomes to an answer at once ---


async def _choice(body: ChatRequest, number: int, outcome: Outcome) -> Choice:
    content: str | list[AnswerText | AnswerImage] = outcome.text
    images: list[AnswerBeside] | None = None
    if body.images_in == "images":
        images, said = [], 0
        for part in outcome.parts:
            if isinstance(part, str):
                said += len(part)
            else:
                images.append(await _beside(part, len(images), said))
    elif outcome.images:
        content = [AnswerText(text=part) if isinstance(part, str) else await _image(part) for part in outcome.parts]
    call = read_call(outcome.text, bool(callable_functions(body)))
    if call is not None:
        message = AnswerMessage(content=None, tool_calls=[call], reasoning_content=outcome.reasoning)
        return Choice(index=number, message=message, finish_reason="tool_calls")
    notices = None if outcome.images or outcome.text.strip() else [EMPTY]
    message = AnswerMessage(content=content, images=images, reasoning_content=outcome.reasoning, notices=notices)
    return Choice(index=number, message=message, finish_reason=REASONS[outcome.end.reason])


async def _beside(picture: ImageEvent, index: int, offset: int) -> AnswerBeside:
    return AnswerBeside(image_url=(await _image(picture)).image_url, index=index, offset=offset)


async def _image(picture: ImageEvent) -> AnswerImage:
    return AnswerImage(image_url=AnswerUrl(url=f"data:image/png;base64,{await as_base64(picture.image)}"))


def _usage(usages: Sequence[Usage]) -> ChatUsage:
    total = Usage.together(usages)
    return ChatUsage(
        prompt_tokens=total.prompt_tokens, completion_tokens=total.completion_tokens, total_tokens=total.total_tokens
    )


# --- from events to a stream ---


async def _messages(
    body: ChatRequest,
    here: Context,
    request: Request,
    each: Sequence[Chat | Story],
    answer: dict[str, Any],
    warnings: list[str] | None,
) -> sse.Messages:
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    kind = ChatChunkWithUsage if with_usage else ChatChunk

    def chunk(number: int, delta: Delta, reason: FinishReason | None = None) -> bytes:
        choice = ChunkChoice(index=number, delta=delta, finish_reason=reason)
        return sse.message(kind(**answer, choices=[choice]))

    usages: list[Usage] = []
    told: dict[int, _Told] = {}
    async with contextlib.aclosing(arriving(here, request, each, body.partial_images or 0)) as events:
        async for item in events:
            if item is None:
                yield sse.PING
                continue
            number, event = item
            if number not in told:
                first = kind(**answer, choices=[ChunkChoice(index=number, delta=Delta(role="assistant", content=""))])
                yield sse.message(first if told else first.model_copy(update={"warnings": warnings}))
                told[number] = _Told(bool(callable_functions(body)))
            if isinstance(event, TextDelta | ImageEvent):
                for delta in await told[number].deltas(event, body.images_in == "images"):
                    yield chunk(number, delta)
            elif isinstance(event, EndEvent):
                usages.append(event.usage)
                reason = "tool_calls" if told[number].reader.called else REASONS[event.reason]
                yield chunk(number, Delta(notices=told[number].notices), reason)
            elif isinstance(event, PartialImage):
                yield await _partial(number, event, answer)
            elif body.progress:
                yield sse.message(ChatProgress.of(number, event, **answer), "llada.progress", f"{event.stage} {number}")
    if with_usage:
        yield sse.message(ChatChunkWithUsage(**answer, choices=[], usage=_usage(usages)))
    yield sse.DONE


class _Told:
    """What a stream has said of one answer. said: characters of its text, images: how many."""

    def __init__(self, calls: bool) -> None:
        self.said, self.images, self.words = 0, 0, False
        self.reader = CallReader(calls)

    async def deltas(self, event: TextDelta | ImageEvent, beside: bool) -> list[Delta]:
        if isinstance(event, ImageEvent):
            self.images += 1
            if beside:
                return [Delta(images=[await _beside(event, self.images - 1, self.said)])]
            return [Delta(content=[await _image(event)])]
        if event.reasoning:
            return [Delta(reasoning_content=event.text)]
        self.said += len(event.text)
        self.words = self.words or bool(event.text.strip())
        pieces = self.reader.take(event.text)
        return [Delta(content=piece) if isinstance(piece, str) else Delta(tool_calls=[piece]) for piece in pieces]

    @property
    def notices(self) -> list[str] | None:
        return None if self.words or self.images else [EMPTY]


async def _partial(number: int, event: PartialImage, answer: dict[str, Any]) -> bytes:
    data = await as_base64(event.image)
    partial = ChatPartialImage(index=number, partial_image_index=event.index, b64_json=data, **answer)
    return sse.message(partial, "llada.partial_image", f"partial {number}")
