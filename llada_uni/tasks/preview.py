"""An image on the way: the codes that stand there now, accepted or not, as a draft or decoded with a few steps.

`Progress` of the stage "codes" -> `Previews` says when one is due -> a PIL image. For servers and for programs with a window.
"""

from __future__ import annotations

from PIL import Image

from llada_uni.generation.params import Decoding
from llada_uni.image.codes import ImageCodes
from llada_uni.results import NO_CODE, Progress
from llada_uni.tasks.decode import decode
from llada_uni.tasks.parts import Parts

STEPS = 2  # of the decoder


class Previews:
    """At most `most` previews of each image of a task. seed: of their noise.

    The first comes with the first proposals, the others when an even share of the positions is accepted; an image that is
    accepted faster has fewer.
    """

    def __init__(self, parts: Parts, most: int, seed: int = 0) -> None:
        self.parts, self.most, self.seed = parts, most, seed
        self.shown = 0  # of the image under way

    def take(self, progress: Progress) -> Image.Image | None:
        """The preview that is due now, or None. All progress of the task goes through here."""
        if progress.stage != "codes":
            self.shown = 0  # the next codes are another image's
            return None
        due = 1 + self.most * progress.done // progress.total
        if self.shown >= min(due, self.most) or progress.done >= progress.total:
            return None
        self.shown += 1
        return self._decoded(progress)

    def _decoded(self, progress: Progress) -> Image.Image:
        codes = complete_codes(progress)
        if self.parts.drafter is not None:
            return self.parts.drafter.draw(codes, self.parts.pixels_per_code)
        variants = self.parts.decoder.variants
        decoder = "turbo" if "turbo" in variants else variants[0]
        asked = Decoding(decoder=decoder, decoder_steps=STEPS)
        return decode(self.parts, codes, asked, self.seed)[0]


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
