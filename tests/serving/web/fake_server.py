"""A server without a model for the tests of the studio: the true page, headers and bodies, and answers made up here.

Requests of the page -> checked by the server's own models (serving/protocol) -> events built with
these models, so that page and server cannot drift apart unnoticed. Words in a prompt choose what happens: see `_fault`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image, ImageDraw

import llada_uni.serving
from llada_uni.serving.http import sse
from llada_uni.serving.http.guard import BrowserHeaders
from llada_uni.serving.http.kept import HEADER, KeptStreams
from llada_uni.serving.http.protocol.chat import (
    AnswerImage,
    AnswerUrl,
    ChatChunk,
    ChatRequest,
    ChunkChoice,
    Delta,
)
from llada_uni.serving.http.protocol.errors import ApiError, error_body
from llada_uni.serving.http.protocol.images import (
    CompletedEvent,
    EditRequest,
    GenerationRequest,
    ImagesUsage,
    PartialImageEvent,
)
from llada_uni.serving.http.protocol.models import Defaults, Ready
from llada_uni.serving.http.protocol.progress import ProgressEvent, ThinkingEvent
from llada_uni.serving.http.protocol.settings import table
from llada_uni.serving.http.protocol.usage import TokenDetails
from llada_uni.serving.http.routes.models import OFFERED
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.tasks.defaults import Defaults as Settings

WEB = Path(llada_uni.serving.__file__).parent / "web"
SIDE, GRID = 192, (4, 4)
MODEL = "world"
ColorS = ("#96d892", "#8ac0f6", "#faacca", "#ffe26e")
SETTINGS = Settings.from_json(
    {
        "sizes": [f"{SIDE}x{SIDE}"],
        "generate": {"height": SIDE, "width": SIDE, "codes": {"steps": 16, "threshold": 0.98}},
        "edit": {"text_scale": 1.5},
        "understand": {"text": {"max_tokens": 64}},
        "interleave": {"height": SIDE, "width": SIDE, "max_frames": 4},
    }
)


@dataclass
class Seen:
    """What the page asked for, and what a test sets. held: requests with "wait" in their prompt that wait until
    `go_on`; gone: how many of them the page has left before."""

    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    key: str | None = None
    ready: bool = True
    held: int = 0
    gone: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)


def create_fake() -> FastAPI:
    app = FastAPI()
    app.add_middleware(BrowserHeaders)
    app.state.seen = Seen()
    app.state.kept = KeptStreams()

    @app.middleware("http")
    async def check_key(request: Request, go_on: Any) -> Any:
        key = app.state.seen.key
        given = request.headers.get("authorization")
        if request.url.path.startswith("/v1/") and key is not None and given != f"Bearer {key}":
            return _refuse(401, "an API key is needed")
        return await go_on(request)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    @app.get("/ready")
    def ready() -> Any:
        return Ready(model=MODEL) if app.state.seen.ready else _refuse(503, "the model is still being read")

    @app.get("/v1/llada/defaults")
    def defaults() -> Defaults:
        limits = {"max_pixels": 16e6, "max_n": 8, "max_pictures": 8}
        tables = {kind.__name__.lower(): table(kind, SETTINGS.of(kind)) for kind in OFFERED}
        return Defaults(
            model=MODEL, version="0", size_step=32, settings=SETTINGS.to_json(), decoders=["turbo", "base"], rules=[],
            confidences=[], tasks=tables, limits=limits | {"rate": None, "timeout": Limits().timeout}, remote_images=False,
        )  # fmt: skip

    @app.post("/v1/images/generations")
    async def draw(request: Request) -> Any:
        body = GenerationRequest.model_validate_json(await request.body())
        body.check()
        return _answer(request, body, body.prompt, _pictures(body, "image_generation", body.thinking))

    @app.post("/v1/images/edits")
    async def edit(request: Request) -> Any:
        body = EditRequest.model_validate_json(await request.body())
        body.check()
        body.check_mask(body.mask is not None, len(body.images or ()))
        return _answer(request, body, body.prompt, _pictures(body, "image_edit", False))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = ChatRequest.model_validate_json(await request.body())
        body.check()
        words = body.messages[-1].content
        said = words if isinstance(words, str) else words[-1].text
        return _answer(request, body, said, _story(body) if body.images_wanted else _words(body, said))

    @app.get("/v1/llada/streams/{name}")
    async def read_again(name: str) -> Any:
        return StreamingResponse(app.state.kept.find("", name).read(), media_type="text/event-stream")

    @app.delete("/v1/llada/streams/{name}")
    async def drop(name: str) -> Any:
        app.state.kept.find("", name).drop()

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error_body(error.status, str(error), error.param, error.code).model_dump(), error.status)

    app.mount("/studio", StaticFiles(directory=WEB))
    return app


def _answer(request: Request, body: Any, prompt: str, events: AsyncIterator[bytes]) -> Any:
    seen: Seen = request.app.state.seen
    seen.bodies.append((request.url.path, body.model_dump(exclude_none=True)))
    refusal = _fault(prompt)
    if refusal is not None:
        return refusal
    stream = _held(seen, events) if "wait" in prompt else _broken(events) if "break" in prompt else events
    failed = sse.message(error_body(500, "the server failed on this request"), "error")
    kept = request.app.state.kept.keep("", request.headers[HEADER], stream, lambda _: failed)
    return StreamingResponse(_cut(kept) if "cut" in prompt else kept, media_type="text/event-stream")


def _fault(prompt: str) -> JSONResponse | None:
    if "busy" in prompt:
        return _refuse(429, "as many requests wait as may wait", {"Retry-After": "7"})
    if "wrong" in prompt:
        return _refuse(400, "height is 33; allowed: multiples of 32")
    return None


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error_body(status, message).model_dump(), status, headers)


async def _held(seen: Seen, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The first three events, and then nothing until a test lets it go on or the page drops it."""
    seen.held += 1
    try:
        for _ in range(3):
            yield await anext(events)
        while not seen.go_on.is_set():  # set by another thread
            await asyncio.sleep(0.02)
        async for event in events:
            yield event
    finally:
        seen.held -= 1
        seen.gone += not seen.go_on.is_set()


async def _cut(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The first three events, and the connection is lost."""
    for _ in range(3):
        yield await anext(events)


async def _broken(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield await anext(events)
    yield sse.message(error_body(500, "the server failed on this request"), "error")


# --- pictures ---


NINE_WORDS = TokenDetails(text_tokens=9, image_tokens=0)
SIXTEEN_CODES = TokenDetails(text_tokens=0, image_tokens=16)


async def _pictures(body: Any, kind: str, thinking: bool | None) -> AsyncIterator[bytes]:
    for index in range(body.n or 1):
        seed = body.seed + index
        if thinking:
            yield sse.message(ThinkingEvent(index=index, delta="two plus one "))
            yield sse.message(ThinkingEvent(index=index, delta="is three"))
        for step in range(1, 5):
            yield sse.message(_codes(index, step))
            if step in (2, 3):
                partial = {"created_at": 0, "b64_json": picture(seed, step / 4), "output_format": "png"}
                event = PartialImageEvent(
                    type=f"{kind}.partial_image", index=index, size="192x192", partial_image_index=step - 2, **partial
                )
                yield sse.message(event)
            await asyncio.sleep(0)
        done = {"created_at": 0, "b64_json": picture(seed), "output_format": "png", "revised_prompt": body.prompt}
        details = {"input_tokens_details": NINE_WORDS, "output_tokens_details": SIXTEEN_CODES}
        usage = ImagesUsage(input_tokens=9, output_tokens=16, total_tokens=25, **details)
        thought = "two plus one is three" if thinking else None
        event = CompletedEvent(
            type=f"{kind}.completed", index=index, size="192x192", seed=seed, thinking=thought, usage=usage, **done
        )
        yield sse.message(event)


def _codes(index: int, step: int) -> ProgressEvent:
    """After step 1 to 4 the first 4, 8, 12, 16 places are settled; the four after them hold drafts."""
    settled = [place < 4 * step for place in range(16)]
    codes = [100 + place if place < 4 * step + 4 else -1 for place in range(16)]
    sure = [0.99 if place < 4 * step else 0.4 if codes[place] >= 0 else 0.0 for place in range(16)]
    return ProgressEvent(
        index=index, stage="codes", done=4 * step, total=16, grid=GRID, codes=codes, settled=settled, confidences=sure
    )


def picture(seed: int, sharpness: float = 1.0) -> str:
    """A picture that depends on the seed, in base64; drafts are smaller discs."""
    image = Image.new("RGB", (SIDE, SIDE), ColorS[seed % len(ColorS)])
    reach = round(24 * sharpness)
    for x, y in ((32, 32), (96, 96)):
        ImageDraw.Draw(image).ellipse((x - reach, y - reach, x + reach, y + reach), fill="#e8a13c")
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


# --- words ---


def _chunk(body: ChatRequest, delta: Delta, reason: str | None = None) -> bytes:
    head = {"id": "chatcmpl-1", "created": 0, "model": MODEL, "system_fingerprint": "fake", "seed": body.seed}
    choice = ChunkChoice(index=0, delta=delta, finish_reason=reason)
    return sse.message(ChatChunk(**head, choices=[choice]))


async def _words(body: ChatRequest, said: str) -> AsyncIterator[bytes]:
    answer = said.removeprefix("say ") if said.startswith("say ") else "a cat at the top left"
    answer = "" if "silent" in said else answer
    yield _chunk(body, Delta(role="assistant", content=""))
    for word in answer.split(" "):
        yield sse.message(
            ProgressEvent(index=0, stage="text", done=1, total=64, grid=None, codes=None, settled=[], confidences=[])
        )
        yield _chunk(body, Delta(content=f"{word} "))
    yield _chunk(body, Delta(), "stop")
    yield sse.DONE


async def _story(body: ChatRequest) -> AsyncIterator[bytes]:
    yield _chunk(body, Delta(role="assistant", content=""))
    for number, words in enumerate(("the bear plays by the sea", "the bear finds a cake")):
        yield _chunk(body, Delta(content=words))
        for step in range(1, 5):
            yield sse.message(_codes(0, step))
        url = AnswerUrl(url=f"data:image/png;base64,{picture(body.seed + number)}")
        yield _chunk(body, Delta(content=[AnswerImage(image_url=url)]))
    yield _chunk(body, Delta(), "stop")
    yield sse.DONE
