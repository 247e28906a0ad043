"""One answer of /v1/responses as it comes into being: events of a job become numbered events of the API, and the answer.

An answer at once goes the same way, so that it equals the last event of a stream.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any, Literal

from llada_uni.results import EndEvent, ImageEvent, PartialImage, Progress, StreamEvent, TextDelta, Usage
from llada_uni.serving.http.protocol.progress import ProgressEvent
from llada_uni.serving.http.protocol.response_answer import (
    IncompleteDetails,
    OutputCall,
    OutputImage,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningText,
    Response,
    ResponseError,
    ResponseEvent,
    ResponseUsage,
)
from llada_uni.serving.http.routes.forms import CallReader
from llada_uni.serving.http.routes.pictures import Format, as_base64

EMPTY = "the model ended its answer without a word"
CUT = ("length", "context")  # why an answer is not whole
ErrorCode = Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
Events = list[ResponseEvent]


class Writer:
    """response: the answer so far. kind, quality: of image files; prompt: of an image, where one was asked for; progress:
    whether steps are told, too; calls: whether the text may be a call of a function.
    """

    def __init__(
        self,
        response: Response,
        kind: Format,
        quality: int | None,
        prompt: str | None = None,
        progress: bool = False,
        calls: bool = False,
    ) -> None:
        self.response, self.kind, self.quality, self.prompt, self.progress = response, kind, quality, prompt, progress
        self._reader = CallReader(calls)
        self._call: OutputCall | None = None  # the item that is being written
        self._number = 0
        self._text: OutputMessage | OutputReasoning | None = None  # the item that is being written
        self._image: OutputImage | None = None  # the item that is being drawn

    def begin(self) -> Events:
        return [self._whole("response.created"), self._whole("response.in_progress")]

    async def take(self, event: StreamEvent) -> Events:
        """The events of the API that an event of the job becomes."""
        if isinstance(event, TextDelta):
            return list(self._delta(event.text, True) if event.reasoning else self._said(event.text))
        if isinstance(event, Progress):
            begun = list(self._begin_image()) if event.stage == "codes" else []
            if self.progress:
                fields: dict[str, Any] = ProgressEvent.of(0, event).model_dump(exclude={"choices", "type"})
                begun.append(self._event("llada.progress", **fields))
            return begun
        if isinstance(event, PartialImage):
            return [*self._begin_image(), await self._partial(event)]
        if isinstance(event, ImageEvent):
            return [*self._begin_image(), *await self._drawn(event)]
        assert isinstance(event, EndEvent)
        return list(self._end(event))

    def fail(self, code: ErrorCode, message: str, param: str | None) -> Events:
        """The end of an answer that did not come about."""
        self.response.status, self.response.error = "failed", ResponseError(code=code, message=message)
        return [self._event("error", code=code, message=message, param=param), self._whole("response.failed")]

    # --- text and calls ---

    def _said(self, text: str) -> Iterator[ResponseEvent]:
        for piece in self._reader.take(text):
            if isinstance(piece, str):
                yield from self._delta(piece, False)
            elif piece.id is not None:
                yield from self._close_text("completed")
                name = piece.function.name or ""
                item = OutputCall(id=_name("fc"), call_id=piece.id, name=name, arguments="", status="in_progress")
                self._call = item
                self.response.output.append(item)
                yield self._item_event("response.output_item.added", item)
            else:
                assert self._call is not None, "its name comes first"
                self._call.arguments += piece.function.arguments
                yield self._call_event("delta", self._call, delta=piece.function.arguments)

    def _close_call(self, status: Literal["completed", "incomplete"]) -> Iterator[ResponseEvent]:
        item = self._call
        if item is None:
            return
        yield self._call_event("done", item, arguments=item.arguments, name=item.name)
        item.status = status
        yield self._item_event("response.output_item.done", item)
        self._call = None

    def _call_event(self, kind: str, item: OutputCall, **fields: Any) -> ResponseEvent:
        place = self._place(item)
        return self._event(f"response.function_call_arguments.{kind}", output_index=place, item_id=item.id, **fields)

    def _delta(self, text: str, reasoning: bool) -> Iterator[ResponseEvent]:
        kind = OutputReasoning if reasoning else OutputMessage
        if not isinstance(self._text, kind):
            yield from self._close_text("completed")
            yield from self._open_text(reasoning)
        assert self._text is not None
        self._text.content[0].text += text
        if reasoning:
            yield self._part_event("response.reasoning_text.delta", delta=text)
        else:
            yield self._part_event("response.output_text.delta", delta=text, logprobs=[])

    def _open_text(self, reasoning: bool) -> Iterator[ResponseEvent]:
        item: OutputMessage | OutputReasoning
        if reasoning:
            item = OutputReasoning(id=_name("rs"), status="in_progress", content=[])
        else:
            item = OutputMessage(id=_name("msg"), status="in_progress", content=[])
        self._text = item
        self.response.output.append(item)
        yield self._item_event("response.output_item.added", item)
        if isinstance(item, OutputReasoning):
            item.content.append(ReasoningText(text=""))
        else:
            item.content.append(OutputText(text=""))
        yield self._part_event("response.content_part.added", part=item.content[0].model_dump())

    def _close_text(self, status: Literal["completed", "incomplete"]) -> Iterator[ResponseEvent]:
        item = self._text
        if item is None:
            return
        text = item.content[0].text
        if isinstance(item, OutputReasoning):
            yield self._part_event("response.reasoning_text.done", text=text)
        else:
            yield self._part_event("response.output_text.done", text=text, logprobs=[])
        yield self._part_event("response.content_part.done", part=item.content[0].model_dump())
        item.status = status
        yield self._item_event("response.output_item.done", item)
        self._text = None

    # --- images ---

    def _begin_image(self) -> Iterator[ResponseEvent]:
        if self._image is not None:
            return
        yield from self._close_text("completed")
        item = OutputImage(id=_name("ig"), status="in_progress", output_format=self.kind, seed=self.response.seed)
        self._image = item
        self.response.output.append(item)
        yield self._item_event("response.output_item.added", item)
        yield self._image_event("in_progress")
        item.status = "generating"
        yield self._image_event("generating")

    async def _partial(self, event: PartialImage) -> ResponseEvent:
        data = await as_base64(event.image, self.kind, self.quality)
        size = f"{event.image.width}x{event.image.height}"
        return self._image_event(
            "partial_image", partial_image_index=event.index, partial_image_b64=data, output_format=self.kind, size=size,
        )  # fmt: skip

    async def _drawn(self, event: ImageEvent) -> Events:
        item = self._image
        assert item is not None, "an image has begun"
        item.result = await as_base64(event.image, self.kind, self.quality)
        item.size, item.seed, item.status = f"{event.image.width}x{event.image.height}", event.seed, "completed"
        item.revised_prompt, item.notices = self.prompt, list(event.notices) or None
        if event.reasoning and not any(isinstance(one, OutputReasoning) for one in self.response.output):
            text = [ReasoningText(text=event.reasoning)]  # where it did not come as deltas
            self.response.output.insert(-1, OutputReasoning(id=_name("rs"), status="completed", content=text))
        events = [self._image_event("completed"), self._item_event("response.output_item.done", item)]
        self._image = None
        return events

    # --- the end ---

    def _end(self, event: EndEvent) -> Iterator[ResponseEvent]:
        cut = event.reason in CUT
        if not self.response.output:
            yield from self._open_text(reasoning=False)
        yield from self._close_text("incomplete" if cut else "completed")
        yield from self._close_call("incomplete" if cut else "completed")
        written = [item.content[0].text for item in self.response.output if isinstance(item, OutputMessage)]
        others = any(isinstance(item, OutputImage | OutputCall) for item in self.response.output)
        if not others and not "".join(written).strip():
            self.response.notices = [EMPTY]
        self.response.usage = ResponseUsage.of([event.usage or Usage()])
        if cut:
            self.response.incomplete_details = IncompleteDetails(reason="max_output_tokens")
        else:
            self.response.completed_at = int(time.time())
        self.response.status = "incomplete" if cut else "completed"
        yield self._whole(f"response.{self.response.status}")

    # --- events ---

    def _event(self, kind: str, **fields: Any) -> ResponseEvent:
        self._number += 1
        return ResponseEvent(type=kind, sequence_number=self._number - 1, **fields)

    def _whole(self, kind: str) -> ResponseEvent:
        return self._event(kind, response=self.response.model_dump())

    def _place(self, item: OutputItem) -> int:
        return next(place for place, one in enumerate(self.response.output) if one is item)

    def _item_event(self, kind: str, item: OutputItem) -> ResponseEvent:
        return self._event(kind, output_index=self._place(item), item=item.model_dump())

    def _part_event(self, kind: str, **fields: Any) -> ResponseEvent:
        assert self._text is not None, "text is being written"
        return self._event(kind, output_index=self._place(self._text), item_id=self._text.id, content_index=0, **fields)

    def _image_event(self, kind: str, **fields: Any) -> ResponseEvent:
        assert self._image is not None, "an image is being drawn"
        place, name = self._place(self._image), self._image.id
        return self._event(f"response.image_generation_call.{kind}", output_index=place, item_id=name, **fields)


def _name(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
