"""Progress bars for programs and notebooks: tqdm's, which are widgets in a notebook and text elsewhere.

    model.generate_image("a cat and a dog", on_progress=Bars())
"""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm

from llada_uni.results import STAGES, Progress


class Bars:
    """An `on_progress` with one bar for each stage of a task. One object serves any number of calls, one after another.

    options: tqdm's, such as `leave=False` or `disable=True`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._bar: Any = None
        self._stage: str | None = None

    def __call__(self, progress: Progress) -> None:
        """Moves the bar of the stage; a new one begins with another stage, and with the next image or stretch of text."""
        bar = self._bar
        if bar is None or progress.stage != self._stage or progress.done < bar.n or progress.total != bar.total:
            self.close()
            self._bar, self._stage = tqdm(total=progress.total, desc=STAGES[progress.stage], **self.options), progress.stage
        self._bar.update(progress.done - self._bar.n)
        if progress.done >= progress.total:
            self.close()

    def close(self) -> None:
        """Ends the bar that is open, if one is."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._stage = None
