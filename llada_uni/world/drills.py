"""Drills: training samples that ask many small questions at once, so that a thing is found by its name.

One question about one of three things teaches little: half of the right answers are luck, and there is one of them in a
picture. Here a full picture of different things is asked about several of them by name, in any order: where each stands, which
of them are there, or an edit of all of them. They are for training only; no suite asks them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from llada_uni.world.captions import placed_name
from llada_uni.world.concepts import CELLS, COLORS, STYLES, THINGS
from llada_uni.world.edits import expected
from llada_uni.world.samples import Sample, Turn, until
from llada_uni.world.scene import Scene, Thing, placed
from llada_uni.world.split import in_split
from llada_uni.world.wordings import Speaker, article

MOST_NAMED = 6
Named = list[tuple[int, Thing]]


def full_scene(rng: random.Random, split: str) -> Scene:
    """Three to nine different things."""

    def make() -> Scene | None:
        count = rng.randint(3, len(CELLS))
        style, mixed = rng.choice(STYLES), rng.random() < 0.5
        places, names = rng.sample(CELLS, count), rng.sample(THINGS, count)
        things = {p: Thing(n, rng.choice(STYLES) if mixed else style) for p, n in zip(places, names, strict=True)}
        scene = placed(things, rng.choice(tuple(COLORS)))
        return scene if in_split(scene, split) else None

    return until(make)


def some(rng: random.Random, scene: Scene, least: int = 1, all_but: int = 0) -> Named:
    """Some of the things with their cells, in any order."""
    things = scene.things()
    return rng.sample(things, rng.randint(least, min(MOST_NAMED, len(things) - all_but)))


def listed(names: list[str]) -> str:
    """ "cat, the dog and the owl": what stands for a single name behind "the"."""
    return names[0] if len(names) == 1 else ", the ".join(names[:-1]) + f" and the {names[-1]}"


def _names(things: Named) -> str:
    return listed([thing.concept for _, thing in things])


def _where(rng: random.Random, scene: Scene, say: Speaker) -> Sample:
    things = some(rng, scene, least=2)  # of one thing the answer is its place alone: questions.py
    answer = ", ".join(placed_name(cell, thing, style=False) for cell, thing in things)
    return _asked(scene, say.pick("where").format(x=_names(things)), answer)


def _which(rng: random.Random, scene: Scene, say: Speaker) -> Sample:
    """Names of which about half are there."""
    there = [thing.concept for _, thing in some(rng, scene, least=2)]
    others = rng.sample([name for name in THINGS if name not in scene.names()], rng.randint(0, 3))
    names = rng.sample([*there, *others], len(there) + len(others))
    answer = ", ".join(f"{name} {'yes' if name in there else 'no'}" for name in names)
    return _asked(scene, say.pick("presence").format(a=", ".join(article(name) for name in names)), answer)


def _remove(rng: random.Random, scene: Scene, say: Speaker) -> Sample:
    things, target = some(rng, scene, all_but=1), scene
    for cell, _ in things:
        target = target.replace_cell(cell, None)
    return _edited(scene, say.pick("remove").format(x=_names(things)), target)


def _extract(rng: random.Random, scene: Scene, say: Speaker) -> Sample:
    things = some(rng, scene, all_but=1)
    return _edited(scene, say.pick("extract").format(x=_names(things)), placed(dict(things), "white"))


def _restyle(rng: random.Random, scene: Scene, say: Speaker) -> Sample:
    things, style, target = some(rng, scene), rng.choice(STYLES), scene
    for cell, thing in things:
        target = target.replace_cell(cell, Thing(thing.concept, style))
    return _edited(scene, say.pick("restyle").format(x=_names(things), s=style), target)


def _asked(scene: Scene, question: str, answer: str) -> Sample:
    return Sample("understand", "drill", [Turn("user", [scene, question])], [answer], {"answer": answer, "key": None})


def _edited(scene: Scene, text: str, target: Scene) -> Sample:
    return Sample("edit", "drill", [Turn("user", [scene, text])], [target], expected(scene, target))


DRILLS: dict[str, Callable[[random.Random, Scene, Speaker], Sample]] = {
    "where": _where,
    "which": _which,
    "remove": _remove,
    "extract": _extract,
    "restyle": _restyle,
}


def sample_drill(rng: random.Random, kind: str, split: str, wordings: str = "train") -> Sample:
    """A sample of task understand or edit whose pictures belong to the split."""

    def make() -> Sample | None:
        sample = DRILLS[kind](rng, full_scene(rng, split), Speaker(rng, wordings))
        return sample if all(in_split(scene, split) for scene in sample.scenes()) else None

    return until(make)
