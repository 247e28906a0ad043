"""Images of the small world with captions and questions, rendered as they are drawn (plug-ins of data/pictures.py)."""

from __future__ import annotations

import random

from llada_uni.data.pictures import Picture
from llada_uni.world.captions import caption
from llada_uni.world.questions import UNDERSTAND_KINDS, ask
from llada_uni.world.render import render_array
from llada_uni.world.sampling import crowded_scene, sample_scene
from llada_uni.world.scene import Scene
from llada_uni.world.wordings import Speaker

_QUESTIONS = 4
_ASKED = {kind: weight for kind, weight in UNDERSTAND_KINDS.items() if kind not in ("caption", "two pictures")}


class WorldPictures:
    """Scenes of the small world, with their caption and a few questions each."""

    def __init__(self, side: int, split: str) -> None:
        self.side, self.split = side, split

    def draw(self, rng: random.Random, count: int) -> list[Picture]:
        scenes = [sample_scene(rng, self.split, mixed_styles=0.5, numbers=0.1) for _ in range(count)]
        return [Picture(render_array(scene, self.side), caption(scene), _questions(rng, scene)) for scene in scenes]


class CrowdedPictures:
    """Crowded scenes of the small world without words: every drawing is met often. They belong to no split."""

    def __init__(self, side: int, split: str = "any") -> None:
        self.side = side

    def draw(self, rng: random.Random, count: int) -> list[Picture]:
        return [Picture(render_array(crowded_scene(rng), self.side), "", ()) for _ in range(count)]


def _questions(rng: random.Random, scene: Scene) -> tuple[tuple[str, str], ...]:
    kinds = rng.choices(tuple(_ASKED), tuple(_ASKED.values()), k=_QUESTIONS)
    asked = (ask(rng, scene, kind, Speaker(rng, "train")) for kind in kinds)
    return tuple((one.question, one.answer) for one in asked if one is not None)  # not every scene allows every kind
