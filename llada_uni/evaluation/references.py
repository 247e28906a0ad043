"""Two models without weights that bracket every score: one is told the answers, one is always wrong.

The first must get 1.0 in every suite and the second next to nothing; the tests hold the scoring to that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from llada_uni.evaluation.suites import SUITES, draw_samples
from llada_uni.world.render import render
from llada_uni.world.samples import Sample
from llada_uni.world.scene import Scene, sample_scene


@dataclass
class Result:
    """What the calls give back: the fields of the real results that the evaluation reads."""

    image: Image.Image | None = None
    text: str = ""
    thinking: str | None = None


def _said(turns: list[tuple[str, list]]) -> tuple:
    """A dialogue as a key: pictures by their pixels, whether given as scenes or drawn."""
    pictured = [
        (
            role,
            [
                render(p).tobytes() if isinstance(p, Scene) else getattr(p, "tobytes", lambda p=p: p)()
                for p in parts
            ],
        )
        for role, parts in turns
    ]
    return tuple((role, *parts) for role, parts in pictured)


class Oracle:
    """Answers every sample right: it is told the samples, and finds them by what is asked."""

    def __init__(self, limit: int, seed: int, split: str) -> None:
        self.by_key: dict[object, Sample] = {}
        self.dialogues: dict[tuple, Sample] = {}
        for sample in draw_samples("dialogue", limit, seed, split):
            self.dialogues[_said([(t.role, t.parts) for t in sample.turns])] = sample
        for suite in SUITES:
            if suite in ("decoder", "dialogue"):
                continue
            for i, sample in enumerate(draw_samples(suite, limit, seed, split)):
                # Requests for pictures carry the seed; questions and edits carry their picture.
                parts = sample.turns[-1].parts
                pictured = isinstance(parts[0], Scene)
                mark = render(parts[0]).tobytes() if pictured else seed + i
                self.by_key[(sample.task, parts[-1], mark)] = sample

    def generate_image(self, prompt, height, width, seed, thinking, **settings):
        assert (height, width) == (128, 128)
        answer = self.by_key[("think" if thinking else "t2i", prompt, seed)].answer
        return Result(render(answer[-1]), thinking=answer[0] if thinking else None)

    def understand(self, images, question):
        answer = self.by_key[("understand", question, images[0].tobytes())].answer[0]
        return Result(text=f" {answer.capitalize()}. ")  # form does not matter, words do

    def edit_image(self, images, instruction, seed, **settings):
        return Result(render(self.by_key[("edit", instruction, images[0].tobytes())].answer[0]))

    def inpaint(self, image, mask, prompt, seed, **settings):
        sample = self.by_key[("inpaint", prompt, seed)]
        after = image.copy()
        after.paste(render(sample.answer[0]), (0, 0), mask)
        return Result(after)

    def interleave(self, prompt, seed, **settings):
        for part in self.by_key[("story", prompt, seed)].answer:
            yield Result(text=part) if isinstance(part, str) else Result(render(part))

    def chat(self, messages, seed, **settings):
        answer = self.dialogues[_said([(m["role"], m["content"]) for m in messages])].answer[0]
        return Result(text=answer) if isinstance(answer, str) else Result(render(answer))

    def encode_image(self, image):
        return image

    def decode_codes(self, codes, decoder, seed):
        return codes


class Wrong:
    """Draws and says something that was not asked, whatever is asked."""

    def _scene(self, seed: int) -> Image.Image:
        return render(sample_scene(random.Random(1000 + seed), "any"))

    def generate_image(self, prompt, height, width, seed, thinking, **settings):
        return Result(self._scene(seed), thinking="seven")

    def understand(self, images, question):
        return Result(text="a zebra")

    def edit_image(self, images, instruction, seed, **settings):
        return Result(images[0])  # changes nothing

    def inpaint(self, image, mask, prompt, seed, **settings):
        return Result(image)

    def interleave(self, prompt, seed, **settings):
        for i in range(3):
            yield Result(text="the zebra sings")
            yield Result(self._scene(seed * 3 + i))

    def chat(self, messages, seed, **settings):
        return Result(self._scene(seed), text="a zebra")

    def encode_image(self, image):
        return image

    def decode_codes(self, codes, decoder, seed):
        return self._scene(seed)
