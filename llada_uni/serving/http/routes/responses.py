"""POST /v1/responses: OpenAI's newer API for the same conversations, and for images as calls of a tool.

A body becomes a `Chat` (text), a `Story` (text and images in turn), or, where the image tool is required, a `Draw` or an
`Edit`. What comes back is a `Response`, or the events of one (`response_writer.py`). Nothing is kept between requests.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from PIL import Image

from llada_uni.requests import Chat, Draw, Edit, Request, Story, Understand
from llada_uni.results import TextDelta
from llada_uni.serving.http import sse
from llada_uni.serving.http.protocol.common import draw_seed, read_size
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.protocol.response_answer import Response
from llada_uni.serving.http.protocol.responses import (
    CallItem,
    CallOutputItem,
    DrawnItem,
    ImageTool,
    InputImage,
    MessageItem,
    ResponsesRequest,
    TextFormat,
)
from llada_uni.serving.http.routes.bodies import JsonRoute, warnings_of
from llada_uni.serving.http.routes.context import Context, Here
from llada_uni.serving.http.routes.forms import form_of_response, told_tools, words_of_call
from llada_uni.serving.http.routes.pictures import open_pictures
from llada_uni.serving.http.routes.response_writer import ErrorCode, Events, Writer
from llada_uni.serving.http.routes.running import arriving, outcomes, stream

router = APIRouter(route_class=JsonRoute)


@dataclass(frozen=True)
class _Turn:
    role: str
    parts: tuple[str | Image.Image, ...]

    @property
    def words(self) -> str:
        return "\n".join(part.strip() for part in self.parts if isinstance(part, str) and part.strip())

    @property
    def images(self) -> list[Image.Image]:
        return [part for part in self.parts if isinstance(part, Image.Image)]


@router.post("/v1/responses", response_model=Response, responses=sse.STREAMED, tags=["responses"])
async def create_response(body: ResponsesRequest, request: HttpRequest, here: Here) -> Any:
    """The next answer of a conversation: text, a call of a function, or with the tool image_generation text and images."""
    here = await here.accept(request, body)
    body.check()
    seed = draw_seed() if body.seed is None else body.seed
    asked, prompt = await _asked(body, here)
    asked = asked.replace(seed=seed)
    tool = body.tool or ImageTool(type="image_generation")
    begun = _begun(body, here, seed, warnings_of(request))
    about = (tool.output_format or "png", tool.output_compression, prompt, bool(body.progress), bool(body.functions))
    writer = Writer(begun, *about)
    if body.stream:
        messages = _messages(body, here, request, asked, writer)
        return await stream(here, request, messages, lambda error: _failed(here, body, writer, error))
    outcome = (await outcomes(here, request, [asked]))[0]
    if outcome.reasoning:
        await writer.take(TextDelta(outcome.reasoning, reasoning=True))
    for part in outcome.parts:
        await writer.take(TextDelta(part) if isinstance(part, str) else part)
    await writer.take(outcome.end)
    return writer.response


def _begun(body: ResponsesRequest, here: Context, seed: int, warnings: list[str]) -> Response:
    chosen = body.tool_choice or "auto"
    return Response(
        id=f"resp_{uuid.uuid4().hex}",
        created_at=int(time.time()),
        instructions=body.instructions,
        max_output_tokens=body.most_tokens,
        max_tool_calls=body.max_tool_calls,
        metadata=body.metadata or {},
        model=here.options.model_name,
        output=[],
        parallel_tool_calls=body.parallel_tool_calls is not False,
        temperature=body.temperature,
        text={"format": {"type": "text"} if body.form is None else _format_of(body.form)},
        tool_choice=chosen if isinstance(chosen, str) else chosen.model_dump(),
        tools=[tool.model_dump(exclude_none=True) for tool in body.tools or ()],
        top_p=body.top_p,
        user=body.user,
        seed=seed,
        warnings=warnings or None,
        system_fingerprint=here.fingerprint,
    )


def _format_of(form: TextFormat) -> dict[str, Any]:
    return form.model_dump(exclude_none=True, by_alias=True)


# --- from the body to a request ---


async def _asked(body: ResponsesRequest, here: Context) -> tuple[Request, str | None]:
    """(what is asked of the model, the prompt of an image that must be drawn)."""
    form = form_of_response(body)
    turns = await _conversation(body, here)
    if body.must_draw:
        return _one_image(body, turns)
    messages = [*told_tools(body.functions), *({"role": turn.role, "content": list(turn.parts)} for turn in turns)]
    length = {} if body.most_tokens is None else {"max_tokens": body.most_tokens}
    if body.tool is None:
        body.check_settings(Understand)
        return Chat(messages=messages, modalities=("text",), **body.given(Understand) | length | form), None
    body.check_settings(Story)
    frames = {} if body.max_tool_calls is None else {"max_frames": body.max_tool_calls}
    return Story(messages=messages, **body.given(Story) | length | frames | _size(body)), None


def _size(body: ResponsesRequest) -> dict[str, int]:
    height, width = read_size(None if body.tool is None else body.tool.size)
    return {} if height is None or width is None else {"height": height, "width": width}


def _one_image(body: ResponsesRequest, turns: list[_Turn]) -> tuple[Request, str]:
    """An image of the last words of the user, or a change of images: those of that turn, or for "edit" the last ones."""
    last = turns[-1]
    if last.role != "user" or not last.words:
        raise ApiError(400, "the last message must be the user's, and say in words what to draw", "input")
    assert body.tool is not None, "a required tool is there"
    action, images = body.tool.action or "auto", last.images
    if action == "edit" and not images:
        images = next((turn.images for turn in reversed(turns) if turn.images), [])
        if not images:
            raise ApiError(400, "there is no image in the conversation to edit", "tools[0].action")
    prompt = "\n".join(filter(None, [body.instructions, last.words]))
    if images and action != "generate":
        body.check_settings(Edit)
        return Edit(images=images, instruction=prompt, **body.given(Edit) | _size(body)), prompt
    body.check_settings(Draw)
    return Draw(prompt=prompt, **body.given(Draw) | _size(body)), prompt


async def _conversation(body: ResponsesRequest, here: Context) -> list[_Turn]:
    """The turns that the items are, their images opened."""
    sources: list[tuple[str, str]] = []
    rough: list[tuple[str, list[str | None]]] = [] if body.instructions is None else [("system", [body.instructions])]
    for number, item in enumerate(body.items()):
        if isinstance(item, DrawnItem):
            sources.append((f"input[{number}].result", f"data:image/png;base64,{item.result}"))
            rough.append(("assistant", [None]))
        elif isinstance(item, CallItem):
            rough.append(("assistant", [words_of_call(item.name, item.arguments)]))
        elif isinstance(item, MessageItem | CallOutputItem):
            parts: list[str | None] = []
            field = "content" if isinstance(item, MessageItem) else "output"
            for place, part in enumerate(item.parts()):
                if isinstance(part, InputImage):
                    sources.append(_image_source(part, f"input[{number}].{field}[{place}].image_url"))
                    parts.append(None)
                else:
                    parts.append(part.text)
            role = item.role if isinstance(item, MessageItem) else "user"
            rough.append(("system" if role == "developer" else role, parts))
    if not rough or rough[-1][0] in ("system", "assistant"):
        raise ApiError(400, "the last item of the input must be a message of the user", "input")
    images = iter(await open_pictures(here, sources))
    return [_Turn(role, tuple(next(images) if part is None else part for part in parts)) for role, parts in rough]


def _image_source(part: InputImage, field: str) -> tuple[str, str]:
    if part.image_url is None:
        raise ApiError(400, "image_url is missing: a data URI of the image", field)
    return field, part.image_url


# --- from events to a stream ---


def _wire(events: Events) -> bytes:
    return b"".join(sse.message(event, event.type) for event in events)


async def _messages(
    body: ResponsesRequest, here: Context, request: HttpRequest, asked: Request, writer: Writer
) -> sse.Messages:
    async with contextlib.aclosing(arriving(here, request, [asked], body.most_partials)) as events:
        begun = False
        async for item in events:
            if item is None:
                yield sse.PING
                continue
            told = [] if begun else writer.begin()
            begun = True
            if events_of_it := [*told, *await writer.take(item[1])]:
                yield _wire(events_of_it)


def _failed(here: Context, body: ResponsesRequest, writer: Writer, error: Exception) -> bytes:
    """The end of a stream that has begun."""
    status, told = here.explain(error, body)
    code: ErrorCode = "server_error" if status >= 500 else "rate_limit_exceeded" if status == 429 else "invalid_prompt"
    return _wire(writer.fail(code, told.error.message, told.error.param))
