"""What a job tells its client while it runs, in order: plain records without tensors.

What flows through: steps of a task (worker threads) -> these -> a stream of HTTP events. A job ends with `Finished`, or
raises. Stages: "text", "codes" (a picture as codes) and "decode" (codes to pixels), as in `results.Progress`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image


@dataclass(frozen=True)
class Draft:
    """The state after one step; a slow reader sees the newest of each stage only.

    done of total: places filled, or evaluations of the decoder. In the stage "codes", grid is (rows, columns) and
    tokens, settled and confidences have a value for every place of it, row by row: the code that stands there now
    (-1: none yet), whether it is final, and how sure the model was (0 where there is none). They are empty in the other
    stages.
    """

    stage: Literal["text", "codes", "decode"]
    done: int
    total: int
    tokens: tuple[int, ...] = ()
    settled: tuple[bool, ...] = ()
    confidences: tuple[float, ...] = ()
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class PartialPicture:
    """A picture of draft codes, decoded cheaply. index: from 0, counted for each picture."""

    index: int
    image: Image.Image


@dataclass(frozen=True)
class TextDelta:
    """Words that are settled: whole characters, never taken back, no part of a stop string. Those of one kind, put
    together, are the text of the result.
    """

    text: str
    kind: Literal["answer", "thinking"] = "answer"


@dataclass(frozen=True)
class Picture:
    """A finished picture. image: None where only codes were asked for (decoder "none"); codes: row by row, with their
    grid (rows, columns); number: from 1; seed: gives the same again; thinking: the thought before it, or None.
    """

    image: Image.Image | None
    codes: tuple[int, ...]
    grid: tuple[int, int]
    number: int
    seed: int
    thinking: str | None = None


@dataclass(frozen=True)
class Usage:
    """prompt_tokens: of the request, codes of its pictures included; completion_tokens: words written and codes drawn."""

    prompt_tokens: int
    completion_tokens: int
    pictures: int

    @classmethod
    def together(cls, usages: Sequence[Usage]) -> Usage:
        """Of all results of one request; the prompt, which they share, counts once."""
        made = sum(usage.completion_tokens for usage in usages)
        return cls(usages[0].prompt_tokens, made, sum(usage.pictures for usage in usages))

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Finished:
    """The end. reason: "stop" (the model or a stop string ended it), "length" (max_tokens or the context), or "frames"
    (as many pictures as were allowed). evaluations: runs of each network ("backbone", "branches", "decoder"); seconds:
    by stage, and in "total".
    """

    reason: Literal["stop", "length", "frames"]
    seed: int
    usage: Usage
    evaluations: dict[str, int]
    seconds: dict[str, float]


Event = Draft | PartialPicture | TextDelta | Picture | Finished
