"""Questions about one picture, with the one canonical answer each.

Kinds: what (what is at a place), where, count, total, background, style, presence, relation, caption, list.
"What is at" and counting are asked most: naming and counting are what everything else stands on.
"""

from __future__ import annotations

import random

from llada_uni.world.captions import caption, listing
from llada_uni.world.concepts import CONCEPTS, POSITIONS
from llada_uni.world.samples import CELLS, NAMES, Sample, Turn, arrange, until
from llada_uni.world.scene import Scene, Thing, sample_scene
from llada_uni.world.wordings import NUMBERS, article, pick

UNDERSTAND_KINDS = {
    "what": 0.26,
    "where": 0.09,
    "count": 0.14,
    "total": 0.06,
    "background": 0.07,
    "style": 0.09,
    "presence": 0.08,
    "relation": 0.06,
    "caption": 0.10,
    "list": 0.05,
}
_RELATIONS = {
    "left of": lambda i, j: i % 2 < j % 2,
    "right of": lambda i, j: i % 2 > j % 2,
    "above": lambda i, j: i // 2 < j // 2,
    "below": lambda i, j: i // 2 > j // 2,
}


def unique(scene: Scene) -> list[tuple[int, Thing]]:
    """The things whose concept stands once in the scene: those that a bare name points at."""
    things = scene.things()
    names = [t.concept for _, t in things]
    return [(i, t) for i, t in things if names.count(t.concept) == 1]


def absent(rng: random.Random, scene: Scene) -> str:
    """A concept that is not in the scene."""
    names = {t.concept for _, t in scene.things()}
    while (name := rng.choice(NAMES)) in names:
        pass
    return name


def ask(rng: random.Random, scene: Scene, kind: str, wordings: str) -> tuple[str, str] | None:
    """(question, answer) of the kind about `scene`; None where the scene does not allow that kind."""
    asked = _ask(rng, scene, kind, wordings)
    if asked is None:
        return None
    question, answer = asked
    is_question = question.split()[0] not in ("tell", "find", "count", "describe", "name")
    mark = "?" if is_question and rng.random() < 0.7 else ""
    return question + mark, answer


def _ask(rng: random.Random, scene: Scene, kind: str, wordings: str) -> tuple[str, str] | None:
    template = pick(rng, "count" if kind == "total" else kind, wordings)
    things, single = scene.things(), unique(scene)
    if kind == "what":
        empty = [i for i in CELLS if scene.cells[i] is None]
        if empty and (not things or rng.random() < 0.2):
            return template.format(p=POSITIONS[rng.choice(empty)]), "nothing"
        cell, thing = rng.choice(things)
        return template.format(p=POSITIONS[cell]), thing.concept
    if kind == "where":
        if not single:
            return None
        cell, thing = rng.choice(single)
        return template.format(x=thing.concept), POSITIONS[cell]
    if kind == "count":
        name = absent(rng, scene) if not things or rng.random() < 0.12 else rng.choice(things)[1].concept
        count = sum(t.concept == name for _, t in things)
        return template.format(xs=CONCEPTS[name].plural), NUMBERS[count]
    if kind == "total":
        return template.format(xs="things"), NUMBERS[len(things)]
    if kind == "background":
        return template, " and ".join(scene.background)
    if kind == "style":
        if not single:
            return None
        thing = rng.choice(single)[1]
        return template.format(x=thing.concept), thing.style
    if kind == "presence":
        yes = bool(things) and rng.random() < 0.5
        name = rng.choice(things)[1].concept if yes else absent(rng, scene)
        return template.format(a=article(name)), "yes" if yes else "no"
    if kind == "relation":
        if len(single) < 2:
            return None
        (i, one), (j, other) = rng.sample(single, 2)
        yes = rng.random() < 0.5
        fitting = [name for name, holds in _RELATIONS.items() if holds(i, j) == yes]
        return template.format(x=one.concept, y=other.concept, r=rng.choice(fitting)), "yes" if yes else "no"
    if kind == "caption":
        return template, caption(scene)
    return template, listing(scene)


def question_scene(rng: random.Random, kind: str, split: str) -> Scene:
    """A scene that suits the kind: counting needs equal things, relations two different ones."""
    if kind == "count":
        count = rng.choice((1, 1, 2, 2, 3, 3, 4))
        others = rng.randint(0, min(2, 4 - count))
        return arrange(rng, split, [count] + [1] * others, mixed=others > 0 and rng.random() < 0.2)
    if kind == "relation":
        return sample_scene(rng, split, things=rng.choice((2, 2, 3)))
    if kind == "caption":
        return sample_scene(rng, split, things=rng.choices((1, 2, 3, 4), (3, 5, 2, 1))[0])
    if kind in ("total", "background", "list"):
        return sample_scene(rng, split)
    return sample_scene(rng, split, things=rng.choices((1, 2, 3, 4), (2, 4, 3, 3))[0])


def sample_understand(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A picture, a question of the kind and its answer."""

    def make() -> Sample | None:
        scene = question_scene(rng, kind, split)
        asked = ask(rng, scene, kind, wordings)
        if asked is None:
            return None
        question, answer = asked
        return Sample("understand", kind, [Turn("user", [scene, question])], [answer], {"answer": answer})

    return until(make)
