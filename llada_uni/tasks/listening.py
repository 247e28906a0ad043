"""An engine that somebody listens to: its steps become progress, and stop strings end what it writes.

What flows through: a call of `generate` -> the engine -> steps -> `Progress` for the listener (words as they settle,
drafts of codes with their places) -> the Generation, cut short where a stop string is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llada_uni.generation.settings import Generation, Settings, StepEvent
from llada_uni.results import OnProgress, Progress
from llada_uni.tasks.settled import SettledText, cut
from llada_uni.text.prompts import PromptFormat


class _Stopped(Exception):
    """A stop string is complete: nothing more need be written."""


class Listened:
    """Has the `generate` of the engine it stands before. `stop`: strings that end words.

    text, stopped: the words written last, without a stop string, and whether one ended them.
    """

    def __init__(self, engine: Any, form: PromptFormat, on_progress: OnProgress | None, stop: Sequence[str] = ()) -> None:
        self.engine, self.form, self.stop = engine, form, stop
        self.on_progress: OnProgress = on_progress or (lambda progress: None)
        self.text, self.stopped = "", False

    def generate(self, prompt: Sequence[int], settings: Settings, **more: Any) -> Generation:
        """As `Engine.generate`; what is restricted to a set of ids is a picture, all else is words."""
        if settings.allowed is None:
            return self._write(prompt, settings, more)
        hear = _Codes(self.form.read_header(prompt), settings.gen_length, self.on_progress)
        return self.engine.generate(prompt, settings, **{**more, "on_step": hear})

    def _write(self, prompt: Sequence[int], settings: Settings, more: dict[str, Any]) -> Generation:
        text = self.form.text
        hear = _Words(SettledText(text, self.stop), settings, self.on_progress)
        try:
            made = self.engine.generate(prompt, settings, **{**more, "on_step": hear})
        except _Stopped:
            steps = len(hear.accepted)
            ids = [token for token in hear.ids if token not in hear.stops]  # no header after the end
            made = Generation(ids, steps, steps * (1 + len(more.get("branches") or ())), hear.accepted)
        self.text, self.stopped = cut(text.decode(made.tokens), self.stop)
        rest = hear.settled.end(self.text)
        if rest:
            self.on_progress(Progress("text", len(made.tokens), settings.gen_length, text=rest))
        return made


class _Words:
    """Hears the steps of one stretch of words. ids: those that are settled with no mask before them."""

    def __init__(self, settled: SettledText, settings: Settings, on_progress: OnProgress) -> None:
        self.settled, self.total, self.on_progress = settled, settings.gen_length, on_progress
        self.stops = frozenset(settings.stop_ids)
        self.ids: list[int] = []
        self.accepted: list[int] = []  # tokens accepted in each step
        self._filled: dict[int, int] = {}  # block -> places of it that are settled

    def __call__(self, event: StepEvent) -> None:
        before = self._filled.get(event.block_start, 0)
        self._filled[event.block_start] = sum(event.accepted)
        self.accepted.append(sum(event.accepted) - before)
        del self.ids[event.block_start :]  # the block is read again as far as it is settled
        ended = False
        for token, accepted in zip(event.tokens, event.accepted, strict=True):
            if not accepted or ended:
                break
            ended = token in self.stops
            self.ids.append(token)
        new = self.settled.take(self.ids)
        self.on_progress(_progress("text", sum(self._filled.values()), self.total, event, text=new))
        if self.settled.stopped:
            raise _Stopped


class _Codes:
    """Hears the steps of one picture. grid: (rows, columns) that its header gives."""

    def __init__(self, grid: tuple[int, int] | None, total: int, on_progress: OnProgress) -> None:
        self.grid, self.total, self.on_progress = grid, total, on_progress
        self._filled: dict[int, int] = {}

    def __call__(self, event: StepEvent) -> None:
        self._filled[event.block_start] = sum(event.accepted)
        self.on_progress(_progress("codes", sum(self._filled.values()), self.total, event, grid=self.grid))


def _progress(stage: str, done: int, total: int, event: StepEvent, **more: Any) -> Progress:
    return Progress(stage, min(done, total), total, event.tokens, event.accepted, event.block_start, event.confidences, **more)
