"""An engine that somebody listens to: its steps become `Progress`, and stop strings end what it writes.

A call of `generate` goes to the engine; from its steps the listener hears text as it becomes certain, and the grid of
codes as it fills. Text is certain once no later step can change it. Held back are bytes of an unfinished character, spaces
that may turn out to be the end (answers are stripped), and what may be the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llada_uni.generation.settings import Generation, Settings, StepEvent
from llada_uni.results import NO_CODE, OnProgress, Progress
from llada_uni.text.prompts import PromptFormat
from llada_uni.text.tokenizer import TextTokenizer

UNFINISHED = "\ufffd"  # what a tokenizer makes of bytes that are no character (yet)


class _Stopped(Exception):
    """A stop string is complete: nothing more need be written."""


class Listened:
    """Has the `generate` of the engine it stands before. `stop`: strings that end text.

    text, stopped: what was written last, without a stop string, and whether one ended them.
    """

    def __init__(self, engine: Any, form: PromptFormat, on_progress: OnProgress | None, stop: Sequence[str] = ()) -> None:
        self.engine, self.form, self.stop = engine, form, stop
        self.on_progress: OnProgress = on_progress or (lambda progress: None)
        self.text, self.stopped = "", False

    def generate(self, prompt: Sequence[int], settings: Settings, **more: Any) -> Generation:
        """As `Engine.generate`; what is restricted to a set of ids is an image, all else is text."""
        if settings.allowed is None:
            return self._write(prompt, settings, more)
        grid = self.form.read_header(prompt) or (1, settings.gen_length)
        hear = _Codes(grid, self.form.image_token_offset, self.on_progress)
        made: Generation = self.engine.generate(prompt, settings, **{**more, "on_step": hear})
        return made

    def _write(self, prompt: Sequence[int], settings: Settings, more: dict[str, Any]) -> Generation:
        text = self.form.text
        held = settings.grammar is not None
        hear = _Words(CertainText(text, self.stop, held), settings, self.on_progress)
        try:
            made: Generation = self.engine.generate(prompt, settings, **{**more, "on_step": hear})
        except _Stopped:
            steps = len(hear.accepted)
            ids = [token for token in hear.ids if token not in hear.stops]  # no header after the end
            made = Generation(ids, steps, steps * (1 + len(more.get("branches") or ())), hear.accepted)
        words = text.decode(made.tokens)
        self.text, self.stopped = (words, False) if held else cut(words, self.stop)
        rest = hear.certain.end(self.text)
        if rest:
            self.on_progress(Progress("text", len(made.tokens), settings.gen_length, rest))
        return made


class _Words:
    """Hears the steps of one stretch of text. ids: those that are accepted with no mask before them."""

    def __init__(self, certain: CertainText, settings: Settings, on_progress: OnProgress) -> None:
        self.certain, self.total, self.on_progress = certain, settings.gen_length, on_progress
        self.stops = frozenset(settings.stop_ids)
        self.ids: list[int] = []
        self.accepted: list[int] = []  # tokens accepted in each step
        self._filled: dict[int, int] = {}  # block -> positions of it that are accepted

    def __call__(self, event: StepEvent) -> None:
        before = self._filled.get(event.block_start, 0)
        self._filled[event.block_start] = sum(event.accepted)
        self.accepted.append(sum(event.accepted) - before)
        del self.ids[event.block_start :]  # the block is read again as far as it is accepted
        ended = False
        for token, accepted in zip(event.tokens, event.accepted, strict=True):
            if not accepted or ended:
                break
            ended = token in self.stops
            self.ids.append(token)
        new = self.certain.take(self.ids)
        self.on_progress(Progress("text", min(sum(self._filled.values()), self.total), self.total, new))
        if self.certain.stopped:
            raise _Stopped


class _Codes:
    """Hears the steps of one image. grid: (rows, columns); offset: the id of code 0."""

    def __init__(self, grid: tuple[int, int], offset: int, on_progress: OnProgress) -> None:
        self.grid, self.offset, self.on_progress = grid, offset, on_progress
        self.total = grid[0] * grid[1]
        self.codes, self.accepted, self.confidences = [NO_CODE] * self.total, [False] * self.total, [0.0] * self.total

    def __call__(self, event: StepEvent) -> None:
        block = slice(event.block_start, event.block_start + len(event.tokens))
        self.codes[block] = [token - self.offset for token in event.tokens]
        self.accepted[block], self.confidences[block] = event.accepted, event.confidences
        state = (tuple(self.codes), tuple(self.accepted), tuple(self.confidences))
        self.on_progress(Progress("codes", sum(self.accepted), self.total, "", self.grid, *state))


# --- text that is certain, and strings that end it ---


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """(the text before the stop string that is complete first, stripped; whether there was one)."""
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    if not ends:
        return text.strip(), False
    return text[: min(ends)[1]].strip(), True


class CertainText:
    """One stretch of text under way. `stopped`: a stop string is complete. held: of a grammar, so that every space counts."""

    def __init__(self, tokenizer: TextTokenizer, stops: Sequence[str] = (), held: bool = False) -> None:
        self.tokenizer, self.stops, self.held, self.stopped = tokenizer, stops, held, False
        self._taken = 0  # ids that are in `_raw`
        self._raw = ""  # their characters
        self._sent = 0  # characters given out so far

    def take(self, ids: Sequence[int]) -> str:
        """The new certain characters, now that `ids` (all from the beginning) are accepted."""
        fresh = self.tokenizer.decode(ids[self._taken :])
        if fresh.endswith(UNFINISHED):
            return ""
        self._raw, self._taken = self._raw + fresh, len(ids)
        if self.held:
            return self._send(self._raw)
        text, self.stopped = cut(self._raw, self.stops)
        if not self.stopped:
            text = self._raw[: len(self._raw) - self._doubtful()].strip()
        return self._send(text)

    def end(self, text: str) -> str:
        """What is missing of the finished text."""
        return self._send(text)

    def _send(self, text: str) -> str:
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        return new

    def _doubtful(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        return max(
            (size for stop in self.stops for size in range(1, len(stop)) if self._raw.endswith(stop[:size])),
            default=0,
        )
