from __future__ import annotations

import random
from collections import Counter

import pytest

from llada_uni.world.captions import caption, listing, quantity
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, STYLES
from llada_uni.world.questions import UNDERSTAND_KINDS, ask, unique
from llada_uni.world.scene import Scene, Thing, sample_scene
from llada_uni.world.tasks import sample_task
from llada_uni.world.wordings import NUMBERS

CAT, DOG = Thing("cat", "cartoon"), Thing("dog", "flat")
PLURALS = {c.plural: c.name for c in CONCEPTS.values()}


def answer_again(question: str, scene: Scene, kind: str) -> str:
    """The answer worked out a second way, from the words of the question."""
    words = question.rstrip("?").split()
    names = [w for w in words if w in CONCEPTS]
    cells = {t.concept: i for i, t in scene.things()}
    if kind == "what":
        cell = next(i for i, p in enumerate(POSITIONS) if p in question)
        thing = scene.cells[cell]
        return thing.concept if thing else "nothing"
    if kind == "where":
        return POSITIONS[cells[names[0]]]
    if kind == "count":
        wanted = next(PLURALS[w] for w in words if w in PLURALS)
        return NUMBERS[sum(t.concept == wanted for _, t in scene.things())]
    if kind == "total":
        return NUMBERS[len(scene.things())]
    if kind == "background":
        return scene.background[0]
    if kind == "style":
        return scene.cells[cells[names[0]]].style
    if kind == "presence":
        return "yes" if names[0] in cells else "no"
    if kind == "relation":
        i, j = cells[names[0]], cells[names[1]]
        x, y = i % 2 - j % 2, i // 2 - j // 2
        relation = next(r for r in ("left", "right", "above", "below") if r in words)
        return "yes" if {"left": x < 0, "right": x > 0, "above": y < 0, "below": y > 0}[relation] else "no"
    return caption(scene) if kind == "caption" else listing(scene)


@pytest.mark.parametrize("kind", UNDERSTAND_KINDS)
@pytest.mark.parametrize("wordings", ["train", "heldout"])
def test_answers_are_right(kind: str, wordings: str) -> None:
    rng = random.Random(5)
    for _ in range(400):
        sample = sample_task(rng, "understand", "train", wordings, kind)
        scene, question = sample.turns[0].parts
        assert sample.answer[0] == answer_again(question, scene, kind), (question, scene)


def test_yes_and_no_are_balanced_and_counts_vary() -> None:
    rng = random.Random(0)
    for kind in ("presence", "relation"):
        yes = sum(sample_task(rng, "understand", kind=kind).answer[0] == "yes" for _ in range(1000))
        assert 430 < yes < 570
    counts = Counter(sample_task(rng, "understand", kind="count").answer[0] for _ in range(1000))
    assert all(counts[n] > 50 for n in NUMBERS)
    nothing = sum(sample_task(rng, "understand", kind="what").answer[0] == "nothing" for _ in range(1000))
    assert 80 < nothing < 300


def test_a_question_never_points_at_two_things() -> None:
    rng = random.Random(1)
    scene = Scene((CAT, CAT, DOG, None))
    assert [t.concept for _, t in unique(scene)] == ["dog"]
    for kind in ("where", "style"):
        for _ in range(20):
            assert "dog" in ask(rng, scene, kind, "train")[0]
    assert ask(rng, scene, "relation", "train") is None


def test_captions() -> None:
    assert caption(Scene((CAT, None, None, DOG), ("blue",))) == (
        "a cartoon cat at the top left and a flat dog at the bottom right on blue"
    )
    assert caption(Scene((CAT, DOG, None, CAT), ("pink",))) == (
        "cartoon cat top left, flat dog top right, cartoon cat bottom right on pink"
    )
    assert caption(Scene((None,) * 4, ("gray", "white"), "rows")) == "nothing on gray and white"
    assert listing(Scene((CAT, DOG, None, CAT))) == "two cats and a dog"
    assert listing(Scene((None,) * 4)) == "nothing"
    assert quantity("apple", 1) == "an apple"
    assert quantity("fox", 3, "3d") == "three 3d foxes"


def test_captions_tell_scenes_apart() -> None:
    rng = random.Random(2)
    scenes = {sample_scene(rng, "any") for _ in range(3000)}
    assert len({caption(s) for s in scenes}) == len(scenes)


def test_names_do_not_collide() -> None:
    # The grammar of stories and answers reads single words: none may mean two things.
    words = [*CONCEPTS, *(c.plural for c in CONCEPTS.values()), *STYLES, *COLORS, *NUMBERS]
    words += [w for p in POSITIONS for w in set(p.split())]
    repeated = {w for w, n in Counter(words).items() if n > 1} - {"top", "bottom", "left", "right"}
    assert not repeated
