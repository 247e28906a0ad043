"""Two models without weights that bracket every score: one is told the answers, one is always wrong.

The first must get 1.0 in every suite and the second next to nothing; the tests hold the scoring to that.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from llada_uni.world.evaluation.suites import SUITES, cases
from llada_uni.world.render import PIXELS, render
from llada_uni.world.samples import Part, Turn
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Scene


@dataclass
class Result:
    """What the calls give back: the fields of the real results that the evaluation reads."""

    image: Image.Image | None = None
    text: str = ""
    thinking: str | None = None


def _mark(part: Part | Image.Image) -> str | bytes:
    """A part as a key: pictures by their pixels, whether given as scenes or drawn."""
    return part if isinstance(part, str) else (render(part) if isinstance(part, Scene) else part).tobytes()


def _said(parts: Iterable[Part | Image.Image]) -> tuple[str | bytes, ...]:
    return tuple(_mark(part) for part in parts)


def _result(part: Part) -> Result:
    return Result(text=part) if isinstance(part, str) else Result(render(part))


class Oracle:
    """Answers every sample right: it is told the samples, and finds them by what is asked."""

    def __init__(self, limit: int, seed: int, split: str) -> None:
        self.answers: dict[tuple, list[Part]] = {}
        for suite in (name for name, kinds in SUITES.items() if kinds):
            for case in cases(suite, limit, seed, split):
                sample = case.sample
                turns = [*sample.turns, Turn("assistant", sample.answer)]
                for i in range(1, len(turns), 2):  # of a dialogue, every answer
                    asked = tuple(_said(turn.parts) for turn in turns[:i])
                    self.answers[asked] = turns[i].parts
                if sample.task == "inpaint":
                    self.answers[(_said([sample.expect["source"], *sample.turns[-1].parts]),)] = sample.answer

    def _find(self, *parts: Any) -> list[Part]:
        return self.answers[(_said(parts),)]

    def generate_image(self, prompt, height, width, seed, thinking, **settings):
        assert (height, width) == (PIXELS, PIXELS)
        answer = self._find(prompt)
        return Result(render(answer[-1]), thinking=answer[0] if thinking else None)

    def understand(self, images, question, seed):
        return Result(text=f" {self._find(*images, question)[0].capitalize()}. ")  # form does not matter, words do

    def edit_image(self, images, instruction, seed, **settings):
        return _result(self._find(*images, instruction)[0])

    def inpaint(self, image, mask, prompt, seed, **settings):
        after = image.copy()
        after.paste(render(self._find(image, prompt)[0]), (0, 0), mask)
        return Result(after)

    def interleave(self, messages, seed, **settings):
        for part in self._find(*messages[0]["content"]):
            yield _result(part)

    def chat(self, messages, seed, **settings):
        return _result(self.answers[tuple(_said(m["content"]) for m in messages)][0])

    def encode_image(self, image):
        return image

    def decode_codes(self, codes, **settings):
        return codes


class Wrong:
    """Draws and says something that was not asked, whatever is asked."""

    def _scene(self, seed: int) -> Image.Image:
        return render(sample_scene(random.Random(1000 + seed), "any"))

    def generate_image(self, prompt, height, width, seed, thinking, **settings):
        return Result(self._scene(seed), thinking="seven")

    def understand(self, images, question, seed):
        return Result(text="a zebra")

    def edit_image(self, images, instruction, seed, **settings):
        return Result(images[0])  # changes nothing

    def inpaint(self, image, mask, prompt, seed, **settings):
        return Result(image)

    def interleave(self, messages, seed, **settings):
        for i in range(3):
            yield Result(text="the zebra sings")
            yield Result(self._scene(seed * 3 + i))

    def chat(self, messages, seed, **settings):
        return Result(self._scene(seed), text="a zebra")

    def encode_image(self, image):
        return image

    def decode_codes(self, codes, **settings):
        return self._scene(settings["seed"])
