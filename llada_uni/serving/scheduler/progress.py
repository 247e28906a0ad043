"""What is shown of a task while it runs: text as it is accepted, codes as they are proposed, partial images.

`Progress` of the task, in its worker thread, becomes TextDelta, Progress and PartialImage events of its job. A partial
image is decoded from the codes that stand there now, accepted or not, with a few steps of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from PIL import Image

from llada_uni.generation.params import Decoding
from llada_uni.image.codes import ImageCodes
from llada_uni.results import NO_CODE, PartialImage, Progress, StreamEvent, TextDelta
from llada_uni.tasks.decode import decode
from llada_uni.tasks.parts import Parts

PARTIAL_STEPS = 2  # of the decoder, for a partial image


class Reporter:
    """The `on_progress` of one task. reasoning: its text is; partials: partial images of each image; seed: of their noise.

    The first partial image comes with the first proposals, the others when an even share of the positions is accepted; an
    image that is accepted faster has fewer.
    """

    def __init__(
        self, parts: Parts, emit: Callable[[StreamEvent], None], reasoning: bool = False, partials: int = 0, seed: int = 0
    ) -> None:
        self.parts, self.emit, self.reasoning = parts, emit, reasoning
        self.partials, self.seed = partials, seed
        self._decoded = 0  # partial images of the image under way

    def __call__(self, progress: Progress) -> None:
        if progress.text:
            self.emit(TextDelta(progress.text, self.reasoning))
        self.emit(replace(progress, text=""))  # it may give way to newer progress, and text must not be lost
        if progress.stage != "codes":
            self._decoded = 0  # the next codes are another image's
            return
        due = 1 + self.partials * progress.done // progress.total
        if self._decoded < min(due, self.partials) and progress.done < progress.total:
            self.emit(PartialImage(self._decoded, self._decode(progress)))
            self._decoded += 1

    def _decode(self, progress: Progress) -> Image.Image:
        variants = self.parts.decoder.variants
        decoder = "turbo" if "turbo" in variants else variants[0]
        asked = Decoding(decoder=decoder, decoder_steps=PARTIAL_STEPS)
        return decode(self.parts, complete_codes(progress), asked, self.seed)[0]


def complete_codes(progress: Progress) -> ImageCodes:
    """A code everywhere: a position without one takes the last before it in its column, else the last of all."""
    assert progress.grid is not None, "progress of codes has a grid"
    rows, columns = progress.grid
    filled = list(progress.codes)
    last = next(code for code in reversed(filled) if code != NO_CODE)
    for position, code in enumerate(filled):
        if code == NO_CODE:
            filled[position] = filled[position - columns] if position >= columns else last
    return ImageCodes(tuple(filled), rows, columns)
