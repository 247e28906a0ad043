"""Events for clients that ask for them (`progress: true`): the state after each step, reasoning text as it is accepted.

`Progress` and `TextDelta` of a job -> events of a stream, beside OpenAI's own.
"""

from __future__ import annotations

import builtins
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from llada_uni.results import Progress, Stage

E = TypeVar("E", bound="ProgressEvent")


class ProgressEvent(BaseModel):
    """done of total: positions filled, or evaluations of the decoder. In the stage "codes": grid is [rows, columns], and
    codes (-1: none yet), settled and confidences have a value for every position, row by row; else codes is null.
    index: which of the n results. choices: always empty; there so that a stream of chat chunks stays one.
    """

    type: Literal["llada.progress"] = "llada.progress"
    index: int
    stage: Stage
    done: int
    total: int
    grid: tuple[int, int] | None
    codes: list[int] | None
    settled: list[bool]
    confidences: list[float]
    choices: list[None] = []

    @classmethod
    def of(cls: builtins.type[E], index: int, progress: Progress, **more: Any) -> E:
        """more: further fields of the class."""
        return cls(
            **more,
            index=index,
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            grid=progress.grid,
            codes=None if progress.grid is None else list(progress.codes),
            settled=list(progress.accepted),
            confidences=[round(value, 3) for value in progress.confidences],
        )


class ThinkingEvent(BaseModel):
    """Reasoning text before an image, as it is accepted."""

    type: Literal["llada.thinking"] = "llada.thinking"
    index: int
    delta: str


class ChatPartialImageEvent(BaseModel):
    """The image that a chat answer is drawing, decoded on the way; partial_image_index is counted for each image."""

    type: Literal["llada.partial_image"] = "llada.partial_image"
    index: int
    partial_image_index: int
    b64_json: str
    choices: list[None] = []
