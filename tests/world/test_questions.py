from __future__ import annotations

import random

import pytest

from llada_uni.world.arrangement import RELATIONS
from llada_uni.world.captions import caption, quantity
from llada_uni.world.concepts import CONCEPTS, POSITIONS, ROWS
from llada_uni.world.questions import UNDERSTAND_KINDS, Asked, absent, ask, by_rows, compare, unique
from llada_uni.world.sampling import number_scene, sample_scene
from llada_uni.world.scene import Thing, placed
from llada_uni.world.tasks import sample_task
from llada_uni.world.wordings import NUMBERS, Speaker

CAT, DOG, OWL = Thing("cat", "cartoon"), Thing("dog", "flat"), Thing("owl", "3d")
NAMES = {c.plural: c.name for c in CONCEPTS.values()}


def test_captions() -> None:
    assert caption(placed({0: CAT, 5: DOG}, "blue")) == "cartoon cat top left, flat dog middle right on blue"
    assert caption(placed({}, "pink")) == "nothing on pink"
    assert caption(placed(dict.fromkeys(range(5), OWL), "gray")) == "five 3d owls on gray"
    assert caption(placed(dict.fromkeys(range(3), OWL), "gray")).startswith("3d owl top left, 3d owl top center, ")
    number = number_scene(random.Random(0), "407", 2, style="flat").with_background("white")
    assert caption(number.replace_cell(0, CAT)) == "cartoon cat top left, flat number 407 in the bottom row on white"
    assert (quantity("mouse", 1), quantity("mouse", 3, "flat")) == ("a mouse", "three flat mice")


def test_different_scenes_have_different_captions_unless_crowded() -> None:
    rng, seen = random.Random(1), {}
    for _ in range(4000):
        scene = sample_scene(rng, "any")
        if max(scene.names().count(n) for n in scene.names()) < 4:
            assert seen.setdefault(caption(scene), scene) == scene


@pytest.mark.parametrize("kind", UNDERSTAND_KINDS)
def test_every_answer_is_true(kind: str) -> None:
    rng = random.Random(5)
    for _ in range(250):
        sample = sample_task(rng, "understand", kind=kind)
        *scenes, question = sample.turns[0].parts
        answer, words = sample.answer[0], question.rstrip("?").split()
        scene = scenes[0]
        cells = {t.concept: i for i, t in unique(scene)}
        if kind == "caption":
            assert answer == caption(scene)
        elif kind == "what-is-where":
            position = next((p for p in POSITIONS if p in question), None)
            thing = scene.cells[POSITIONS.index(position or answer)]
            assert (thing.concept if thing else "nothing") == answer if position else thing.concept in words
        elif kind == "counting":
            plural = next((w for w in words if w in NAMES), "things")
            found = [i for i, t in scene.things() if plural in ("things", CONCEPTS[t.concept].plural)]
            assert answer == f"{by_rows(found)}: {NUMBERS[len(found)]}" and sample.expect["key"] == NUMBERS[len(found)]
        elif kind == "color":
            assert answer == scene.background
        elif kind == "style":
            found = [(i, t) for i, t in unique(scene) if t.concept in words]
            assert [answer] == [f"{POSITIONS[i]}: {t.style}" for i, t in found] and sample.expect["key"] == found[0][1].style
        elif kind == "presence":
            name = next(w for w in words if w in CONCEPTS)
            assert answer == (f"{POSITIONS[cells[name]]}: yes" if name in scene.names() else "no")
        elif kind == "relation":
            one, other = (w for w in words if w in CONCEPTS)
            holds = next(RELATIONS[r](cells[one], cells[other]) for r in RELATIONS if r in question)
            assert sample.expect["key"] == ("yes" if holds else "no")
            assert answer.startswith(f"{one} {POSITIONS[cells[one]]}, {other} {POSITIONS[cells[other]]}: ")
        elif kind == "number reading":
            assert answer == scene.number()
        else:
            assert len(scenes) == 2


def test_comparisons() -> None:
    one, two = placed({0: CAT, 3: DOG}, "blue"), placed({1: CAT, 2: OWL}, "pink")
    rng, say, found = random.Random(0), Speaker(random.Random(0), "train"), set()
    for _ in range(200):
        asked = compare(rng, one, two, say)
        found.add((asked.question.rstrip("?"), asked.answer))
    answers = {answer for _, answer in found}
    ends = {"middle left and no: first", "no and top right: second", "top left and top center: both"}
    assert answers == ends | {"no and no: neither", "cat, dog and cat, owl: cat", "blue and pink: no"}
    assert all(("dog" in q) == a.endswith("first") for q, a in found)


def test_a_thing_that_stands_twice_is_not_asked_for_among_pictures() -> None:
    one, two = placed({0: CAT, 3: DOG}, "blue"), placed({1: CAT, 2: CAT, 4: DOG}, "blue")
    rng, say = random.Random(0), Speaker(random.Random(0), "train")
    asked = [compare(rng, one, two, say) for _ in range(100)]
    assert None in asked  # what both have: two things
    assert not any("cat" in a.question for a in asked if a)
    assert {a.answer for a in asked if a} == {"middle left and middle center: both", "no and no: neither", "blue and blue: yes"}


def test_by_rows() -> None:
    assert by_rows([0, 2, 8]) == "top two, middle zero, bottom one"
    assert [by_rows([]).count(row) for row in ROWS] == [1, 1, 1]


def test_a_scene_that_does_not_allow_a_question() -> None:
    say, rng = Speaker(random.Random(0), "train"), random.Random(0)
    twins = placed({0: CAT, 1: CAT}, "white")
    assert ask(rng, twins, "style", say) is None and ask(rng, twins, "relation", say) is None
    assert ask(rng, twins, "number reading", say) is None
    assert isinstance(ask(rng, twins, "color", say), Asked)
    assert absent(rng, twins) != "cat"


def test_question_marks_stand_behind_questions_only() -> None:
    rng = random.Random(2)
    for _ in range(800):
        question = sample_task(rng, "understand").turns[0].parts[-1]
        if question.endswith("?"):
            assert question.split()[0] not in ("tell", "find", "count", "describe", "read", "please")
