from __future__ import annotations

import pytest

from llada_uni.world.checker import Reading
from llada_uni.world.concepts import CELLS
from llada_uni.world.evaluation.scoring import (
    matched,
    object_f1,
    score_answer,
    score_decoded,
    score_drawing,
    score_edit,
    score_story,
)
from llada_uni.world.samples import wanted
from llada_uni.world.scene import Thing, placed
from llada_uni.world.wordings import normal

CAT, DOG, FOX = Thing("cat", "cartoon"), Thing("dog", "flat"), Thing("fox", "3d")


def read(things: dict[int, Thing | str], background: str = "blue") -> Reading:
    """A reading; "?" stands for a cell that could not be read."""
    scene = placed({i: t for i, t in things.items() if t != "?"}, background)
    return Reading(scene, (1.0,) * 9, tuple(things.get(i) == "?" for i in CELLS), (0.0,) * 9)


def asked(
    *objects: dict, background: str | None = None, relations=(), number: str | None = None, row: int | None = None
) -> dict:
    return {"objects": list(objects), "background": background, "relations": list(relations), "number": number, "row": row}


@pytest.mark.parametrize(
    ("expect", "reading", "objects", "right"),
    [
        (asked(wanted("cat")), read({1: CAT}), 1.0, 1.0),
        (asked(wanted("cat", "flat")), read({1: CAT}), 0.0, 0.0),
        (asked(wanted("cat", None, 1)), read({1: CAT}), 1.0, 1.0),
        (asked(wanted("cat", None, 0)), read({1: CAT}), 0.0, 0.0),
        (asked(wanted("cat")), read({0: DOG, 1: CAT}), 0.5, 0.0),  # something nobody asked for
        (asked(wanted("cat")), read({0: "?", 1: CAT}), 0.5, 0.0),  # something nobody can read
        (asked(wanted("cat"), wanted("dog")), read({0: CAT}), 0.5, 0.0),
        (asked(wanted("cat"), wanted("dog")), read({}), 0.0, 0.0),
        (asked(*[wanted("cat")] * 3), read({0: CAT, 1: CAT}), 2 / 3, 0.0),
        (asked(*[wanted("cat")] * 2), read({0: CAT, 1: CAT, 2: CAT}), 2 / 3, 0.0),
        (asked(*[wanted("cat")] * 9), read(dict.fromkeys(CELLS, CAT)), 1.0, 1.0),
        (asked(wanted("cat"), background="blue"), read({0: CAT}), 1.0, 1.0),
        (asked(wanted("cat"), background="pink"), read({0: CAT}), 1.0, 0.0),
        (asked(wanted("cat"), wanted("dog"), relations=[(0, "above", 1)]), read({1: CAT, 7: DOG}), 1.0, 1.0),
        (asked(wanted("cat"), wanted("dog"), relations=[(0, "left of", 1)]), read({1: CAT, 7: DOG}), 1.0, 0.0),
        (asked(wanted("cat"), wanted("dog"), relations=[(0, "above", 1)]), read({1: CAT}), 0.5, 0.0),
    ],
)
def test_drawings(expect: dict, reading: Reading, objects: float, right: float) -> None:
    scores = score_drawing(expect, reading)
    assert scores["objects"] == pytest.approx(objects)
    assert scores["right"] == right


def test_numbers() -> None:
    four, two = Thing("4", "flat"), Thing("2", "flat")
    drawn = read({3: four, 4: two, 7: CAT})
    assert score_drawing(asked(wanted("cat"), number="42"), drawn)["right"] == 1.0
    assert score_drawing(asked(wanted("cat"), number="42", row=1), drawn)["right"] == 1.0
    assert score_drawing(asked(wanted("cat"), number="42", row=0), drawn)["number"] == 0.0
    assert score_drawing(asked(wanted("cat"), number="24"), drawn)["right"] == 0.0
    assert score_drawing(asked(number="42"), drawn)["right"] == 0.0  # nobody asked for the cat
    assert score_drawing(asked(wanted("cat")), drawn)["right"] == 0.0  # nor for the number
    assert score_drawing(asked(number="42"), read({}))["number"] == 0.0


def test_objects_are_assigned_in_the_best_way() -> None:
    # The first want fits both cats; only the other assignment satisfies the second one.
    assert matched([wanted("cat"), wanted("cat", None, 0)], [(0, CAT), (1, CAT)]) == 2
    assert matched([wanted("cat", None, 0), wanted("cat", None, 0)], [(0, CAT), (1, CAT)]) == 1


def test_edit_tells_the_change_from_the_rest() -> None:
    source = placed({0: CAT, 1: DOG}, "blue")
    expect = {"source": source, "scene": source.replace_cell(0, FOX), "cells": [0]}
    assert score_edit(expect, read({0: FOX, 1: DOG})) == {"right": 1.0, "asked": 1.0, "kept": 1.0}
    assert score_edit(expect, read({0: FOX})) == {"right": 0.0, "asked": 1.0, "kept": 0.0}
    assert score_edit(expect, read({0: CAT, 1: DOG})) == {"right": 0.0, "asked": 0.0, "kept": 1.0}
    assert score_edit(expect, read({0: FOX, 1: DOG}, "pink"))["kept"] == 0.0
    assert score_edit(expect, read({0: "?", 1: DOG}))["asked"] == 0.0
    assert score_edit(expect, read({0: FOX, 1: DOG, 2: "?"}))["kept"] == 0.0


def test_removal_is_not_done_by_an_unreadable_cell() -> None:
    source = placed({0: CAT, 1: DOG}, "blue")
    expect = {"source": source, "scene": source.replace_cell(0, None), "cells": [0]}
    assert score_edit(expect, read({1: DOG}))["right"] == 1.0
    assert score_edit(expect, read({0: "?", 1: DOG}))["asked"] == 0.0


def test_background_edit() -> None:
    source = placed({0: CAT}, "blue")
    expect = {"source": source, "scene": source.with_background("pink"), "cells": []}
    assert score_edit(expect, read({0: CAT}, "pink"))["right"] == 1.0
    assert score_edit(expect, read({0: CAT})) == {"right": 0.0, "asked": 0.0, "kept": 1.0}
    assert score_edit(expect, read({0: DOG}, "pink"))["kept"] == 0.0


def test_answers_are_compared_by_words() -> None:
    assert normal(" Two cats ,  and a DOG. ") == "two cats, and a dog" and normal("yes : no") == "yes: no"
    plain = {"answer": "top left", "key": None}
    assert score_answer(plain, "Top  left.") == {"right": 1.0, "whole": 1.0}
    assert score_answer(plain, "top right")["right"] == 0.0 and score_answer(plain, "")["right"] == 0.0
    reasoned = {"answer": "top two, middle zero, bottom zero: two", "key": "two"}
    assert score_answer(reasoned, "top one, middle one, bottom zero: two") == {"right": 1.0, "whole": 0.0}
    assert score_answer(reasoned, "top two, middle zero, bottom zero: three")["right"] == 0.0
    assert score_answer(reasoned, "two")["right"] == 1.0


def test_object_f1() -> None:
    right = "cartoon cat top left, flat dog top right on blue"
    assert object_f1(right, right) == 1.0 and object_f1(right.replace("blue", "pink"), right) == 1.0
    assert object_f1("cartoon cat top left on blue", right) == pytest.approx(2 / 3)
    assert object_f1("cartoon cat top left, cartoon cat top left on blue", right) == pytest.approx(0.5)
    assert object_f1("", right) == 0.0


FRAMES = [
    ("mia the cat is by the sea: cartoon cat middle center on blue", read({4: CAT})),
    ("mia the cat goes to the top left: cartoon cat top left on blue", read({0: CAT})),
    ("mia the cat walks to the party: cartoon cat top left on pink", read({0: CAT}, "pink")),
]
STORY = {"characters": ["cat"], "style": None, "background": "blue", "frames": 3}


def test_a_right_story() -> None:
    assert set(score_story(STORY, FRAMES).values()) == {1.0}
    assert set(score_story(STORY | {"style": "cartoon"}, FRAMES).values()) == {1.0}


def test_what_is_wrong_with_a_story_costs_its_frames() -> None:
    assert score_story(STORY | {"style": "flat"}, FRAMES)["right"] == 0.0
    assert score_story(STORY | {"background": "pink"}, FRAMES)["told"] == pytest.approx(2 / 3)
    lost = score_story(STORY, [*FRAMES[:2], (FRAMES[2][0], read({0: DOG}, "pink"))])
    assert (lost["characters"], lost["agreement"], lost["told"], lost["whole"]) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        1.0,
        0.0,
    )
    twice = score_story(STORY, [*FRAMES[:2], (FRAMES[2][0], read({0: CAT, 1: CAT}, "pink"))])
    assert twice["characters"] == pytest.approx(2 / 3)
    restyled = score_story(STORY, [*FRAMES[:2], (FRAMES[2][0], read({0: Thing("cat", "3d")}, "pink"))])
    assert restyled["characters"] == pytest.approx(2 / 3)
    untold = score_story(STORY, [FRAMES[0], FRAMES[2]])
    assert untold["told"] == pytest.approx(1 / 3) and untold["right"] == pytest.approx(1 / 3)  # and a frame is missing
    longer = score_story(STORY | {"frames": 2}, FRAMES)
    assert longer["right"] == 1.0  # of the three told


def test_a_story_without_pictures_or_words_scores_nothing() -> None:
    assert set(score_story(STORY, []).values()) == {0.0}
    words_only = score_story(STORY, [(text, None) for text, _ in FRAMES])
    assert words_only["told"] == 1.0 and words_only["right"] == 0.0
    gibberish = score_story(STORY, [("the zebra sings", reading) for _, reading in FRAMES])
    assert gibberish["characters"] == 1.0 and gibberish["right"] == 0.0


def test_decoded() -> None:
    scene = placed({0: CAT, 1: DOG}, "blue")
    assert score_decoded(scene, read({0: CAT, 1: DOG})) == {"right": 1.0, "whole": 1.0}
    assert score_decoded(scene, read({0: CAT, 1: FOX})) == {"right": 0.5, "whole": 0.0}
    assert score_decoded(scene, read({0: CAT, 1: DOG}, "gray"))["whole"] == 0.0
    assert score_decoded(scene, read({0: CAT, 1: DOG, 2: FOX})) == {"right": 1.0, "whole": 0.0}
    assert score_decoded(scene, read({0: CAT, 1: "?"}))["right"] == 0.5
