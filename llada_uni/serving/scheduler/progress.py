"""What is shown of a task while it runs: words as they settle, drafts of codes, partial pictures.

What flows through: `Progress` of the task, in its worker thread -> TextDelta, Draft and PartialPicture events.
A partial picture is painted from the codes that stand there now, accepted or not, with a few steps of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable

from llada_uni.generation.params import Decoding
from llada_uni.image.codes import ImageCodes
from llada_uni.results import Progress
from llada_uni.serving.events import Draft, Event, PartialPicture, TextDelta
from llada_uni.tasks.decode import decode
from llada_uni.tasks.parts import Parts

DRAFT_STEPS = 2  # of the decoder, for a partial picture
NOTHING = -1  # in place of a code that is not drafted yet


class Reporter:
    """The `on_progress` of one task. kind: of its words; partials: partial pictures of each picture; seed: of their noise.

    The first partial picture comes with the first draft, the others when an even share of the places is settled; a
    picture that settles faster has fewer.
    """

    def __init__(self, parts: Parts, emit: Callable[[Event], None], kind: str, partials: int = 0, seed: int = 0) -> None:
        self.parts, self.emit, self.kind = parts, emit, kind
        self.partials, self.seed = partials, seed
        self._grid: _Grid | None = None
        self._painted = 0

    def __call__(self, progress: Progress) -> None:
        if progress.text:
            self.emit(TextDelta(progress.text, self.kind))
        if progress.stage != "codes" or progress.grid is None:
            self._grid = None  # the next codes are another picture's
            self.emit(Draft(progress.stage, progress.done, progress.total))
            return
        if self._grid is None:
            self._grid, self._painted = _Grid(*progress.grid), 0
        self._grid.take(progress, self.parts.config.image_token_offset)
        self.emit(self._grid.draft(progress))
        due = 1 + self.partials * progress.done // progress.total
        if self._painted < min(due, self.partials) and progress.done < progress.total:
            self.emit(PartialPicture(self._painted, self._paint()))
            self._painted += 1

    def _paint(self):
        variants = self.parts.decoder.variants
        decoder = "turbo" if "turbo" in variants else variants[0]
        return decode(self.parts, self._grid.codes(), Decoding(decoder=decoder, decoder_steps=DRAFT_STEPS), self.seed)[0]


class _Grid:
    """The codes of one picture under way, row by row."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        size = rows * columns
        self.tokens, self.settled, self.confidences = [NOTHING] * size, [False] * size, [0.0] * size

    def take(self, progress: Progress, offset: int) -> None:
        places = slice(progress.start, progress.start + len(progress.tokens))
        self.tokens[places] = [token - offset for token in progress.tokens]
        self.settled[places] = progress.settled
        self.confidences[places] = progress.confidences

    def draft(self, progress: Progress) -> Draft:
        return Draft(
            "codes", progress.done, progress.total, tuple(self.tokens), tuple(self.settled), tuple(self.confidences),
            (self.rows, self.columns),
        )  # fmt: skip

    def codes(self) -> ImageCodes:
        """A code everywhere: a place without one takes the last before it in its column, else the last of all."""
        filled = list(self.tokens)
        last = next(token for token in reversed(filled) if token != NOTHING)
        for place, token in enumerate(filled):
            if token == NOTHING:
                filled[place] = filled[place - self.columns] if place >= self.columns else last
        return ImageCodes(tuple(filled), self.rows, self.columns)
