from __future__ import annotations

import pytest

from llada_uni.evaluation.scoring import (
    normal,
    score_answer,
    score_decoded,
    score_edit,
    score_inpaint,
    score_objects,
    score_story,
)
from llada_uni.world.checker import Reading
from llada_uni.world.samples import wanted
from llada_uni.world.scene import Scene, Thing

CAT, DOG, FOX = Thing("cat", "cartoon"), Thing("dog", "flat"), Thing("fox", "3d")


def read(*cells: Thing | str | None, background: str = "blue") -> Reading:
    """A reading; "?" stands for a cell that could not be read."""
    scene = Scene(tuple(None if c == "?" else c for c in cells), (background,))
    return Reading(scene, (1.0,) * 4, tuple(c == "?" for c in cells), (0.0,) * 4)


def asked(*objects: dict, background: str | None = None) -> dict:
    return {"objects": list(objects), "background": background}


@pytest.mark.parametrize(
    ("expect", "reading", "objects", "exact"),
    [
        (asked(wanted("cat")), read(None, CAT, None, None), 1.0, 1.0),
        (asked(wanted("cat", "flat")), read(None, CAT, None, None), 0.0, 0.0),
        (asked(wanted("cat", None, 1)), read(None, CAT, None, None), 1.0, 1.0),
        (asked(wanted("cat", None, 0)), read(None, CAT, None, None), 0.0, 0.0),
        (asked(wanted("cat")), read(DOG, CAT, None, None), 0.5, 0.0),  # something nobody asked for
        (asked(wanted("cat")), read("?", CAT, None, None), 0.5, 0.0),  # something nobody can read
        (asked(wanted("cat"), wanted("dog")), read(CAT, None, None, None), 0.5, 0.0),
        (asked(wanted("cat"), wanted("dog")), read(None, None, None, None), 0.0, 0.0),
        (asked(*[wanted("cat")] * 3), read(CAT, CAT, None, None), 2 / 3, 0.0),
        (asked(*[wanted("cat")] * 2), read(CAT, CAT, CAT, None), 2 / 3, 0.0),
        (asked(wanted("cat"), background="blue"), read(CAT, None, None, None), 1.0, 1.0),
        (asked(wanted("cat"), background="pink"), read(CAT, None, None, None), 1.0, 0.0),
    ],
)
def test_objects(expect: dict, reading: Reading, objects: float, exact: float) -> None:
    scores = score_objects(expect, reading)
    assert scores["objects"] == pytest.approx(objects)
    assert scores["exact"] == exact


def test_objects_are_assigned_in_the_best_way() -> None:
    # The first want fits both cats; only the other assignment satisfies the second one.
    expect = asked(wanted("cat"), wanted("cat", None, 0))
    assert score_objects(expect, read(CAT, CAT, None, None))["objects"] == 1.0


def test_edit_tells_the_change_from_the_rest() -> None:
    source = Scene((CAT, DOG, None, None), ("blue",))
    expect = {"source": source, "scene": source.replace_cell(0, FOX), "cells": [0]}
    assert score_edit(expect, read(FOX, DOG, None, None)) == {"asked": 1.0, "kept": 1.0, "exact": 1.0}
    assert score_edit(expect, read(FOX, None, None, None)) == {"asked": 1.0, "kept": 0.0, "exact": 0.0}
    assert score_edit(expect, read(CAT, DOG, None, None)) == {"asked": 0.0, "kept": 1.0, "exact": 0.0}
    assert score_edit(expect, read(FOX, DOG, None, None, background="pink"))["kept"] == 0.0
    assert score_edit(expect, read("?", DOG, None, None))["asked"] == 0.0
    assert score_edit(expect, read(FOX, DOG, "?", None))["kept"] == 0.0


def test_removal_is_not_done_by_an_unreadable_cell() -> None:
    source = Scene((CAT, DOG, None, None), ("blue",))
    expect = {"source": source, "scene": source.replace_cell(0, None), "cells": [0]}
    assert score_edit(expect, read(None, DOG, None, None))["exact"] == 1.0
    assert score_edit(expect, read("?", DOG, None, None))["asked"] == 0.0


def test_background_edit() -> None:
    source = Scene((CAT, None, None, None), ("blue",))
    expect = {"source": source, "scene": source.with_background("pink"), "cells": []}
    assert score_edit(expect, read(CAT, None, None, None, background="pink"))["exact"] == 1.0
    assert score_edit(expect, read(CAT, None, None, None)) == {"asked": 0.0, "kept": 1.0, "exact": 0.0}
    assert score_edit(expect, read(DOG, None, None, None, background="pink"))["kept"] == 0.0


def test_inpaint() -> None:
    wanted_scene = Scene((CAT, DOG, None, None), ("blue",))
    expect = {"scene": wanted_scene, "cells": [1]}
    assert score_inpaint(expect, read(CAT, DOG, None, None))["exact"] == 1.0
    assert score_inpaint(expect, read(CAT, FOX, None, None)) == {"refilled": 0.0, "kept": 1.0, "exact": 0.0}
    assert score_inpaint(expect, read(FOX, DOG, None, None)) == {"refilled": 1.0, "kept": 0.0, "exact": 0.0}


def test_answers_are_compared_by_words() -> None:
    assert normal(" Two cats ,  and a DOG. ") == "two cats, and a dog"
    assert score_answer({"answer": "top left"}, "Top  left.")["exact"] == 1.0
    assert score_answer({"answer": "top left"}, "top right")["exact"] == 0.0
    assert score_answer({"answer": "cat"}, "")["exact"] == 0.0


def story(*characters: tuple[str, str | None], background: str | None = None) -> dict:
    return {"characters": [{"concept": c, "style": s} for c, s in characters], "background": background}


def test_story_characters_and_agreement() -> None:
    frames = [
        ("a cat and a fox are by the sea", read(CAT, FOX, None, None)),
        ("the cat and the fox find a dog at the bottom left", read(CAT, FOX, DOG, None)),
        ("the cat and the fox go to the party with the dog", read(CAT, FOX, DOG, None, background="pink")),
    ]
    scores = score_story(story(("cat", None), ("fox", "3d"), background="blue"), frames)
    assert scores == {"characters": 1.0, "styles": 1.0, "agreement": 1.0, "events": 1.0, "place": 1.0}
    assert score_story(story(("cat", "flat")), frames)["characters"] == 0.0
    assert score_story(story(("cat", None), background="pink"), frames)["place"] == 0.0

    lost = [*frames[:2], (frames[2][0], read(CAT, None, DOG, None, background="pink"))]
    scores = score_story(story(("cat", None), ("fox", None)), lost)
    assert scores["characters"] == 0.0
    assert scores["agreement"] == pytest.approx(2 / 3)

    swapped = [*frames[:2], (frames[2][0], read(Thing("cat", "3d"), FOX, DOG, None, background="pink"))]
    scores = score_story(story(("cat", None), ("fox", None)), swapped)
    assert (scores["characters"], scores["styles"]) == (1.0, 0.0)

    elsewhere = [frames[0], (frames[1][0], read(CAT, FOX, None, DOG)), frames[0]]
    assert score_story(story(("cat", None)), elsewhere)["agreement"] == pytest.approx(2 / 3)


def test_a_story_without_pictures_or_with_one_scores_nothing_for_characters() -> None:
    assert score_story(story(("cat", None)), []) == {
        "characters": 0,
        "styles": 0,
        "agreement": 0,
        "events": 0,
    }
    assert score_story(story(("cat", None)), [("a cat", read(CAT, None, None, None))])["characters"] == 0.0
    words_only = score_story(story(("cat", None)), [("a cat is in the park", None)])
    assert (words_only["characters"], words_only["agreement"]) == (0.0, 0.0)


def test_nothing_happens() -> None:
    frames = [("the cat waits", read(CAT, None, None, None))] * 3
    assert score_story(story(("cat", None)), frames)["events"] == 0.0


def test_decoded() -> None:
    scene = Scene((CAT, DOG, None, None), ("blue",))
    assert score_decoded(scene, read(CAT, DOG, None, None)) == {"objects": 1.0, "exact": 1.0}
    assert score_decoded(scene, read(CAT, FOX, None, None)) == {"objects": 0.5, "exact": 0.0}
    assert score_decoded(scene, read(CAT, DOG, None, None, background="gray"))["exact"] == 0.0
    assert score_decoded(scene, read(CAT, DOG, FOX, None)) == {"objects": 1.0, "exact": 0.0}
    assert score_decoded(scene, read(CAT, "?", None, None))["objects"] == 0.5
