"""What is shown of a task while it runs: text as it is accepted, codes as they are proposed, partial images.

`Progress` of the task, in its worker thread, becomes TextDelta, Progress and PartialImage events of its job
(tasks/preview.py has the images).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llada_uni.results import PartialImage, Progress, StreamEvent, TextDelta
from llada_uni.tasks.parts import Parts
from llada_uni.tasks.preview import Previews


class Reporter:
    """The `on_progress` of one task. reasoning: its text is; partials: partial images of each image; seed: of their noise."""

    def __init__(
        self, parts: Parts, emit: Callable[[StreamEvent], None], reasoning: bool = False, partials: int = 0, seed: int = 0
    ) -> None:
        self.parts, self.emit, self.reasoning = parts, emit, reasoning
        self.previews = Previews(parts, partials, seed)

    def __call__(self, progress: Progress) -> None:
        if progress.text:
            self.emit(TextDelta(progress.text, self.reasoning))
        self.emit(replace(progress, text=""))  # it may give way to newer progress, and text must not be lost
        image = self.previews.take(progress)
        if image is not None:
            self.emit(PartialImage(self.previews.shown - 1, image))
