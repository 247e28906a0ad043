"""Drills: what they ask is true of their pictures, and nothing held out is shown."""

import random

import pytest

from llada_uni.world.concepts import POSITIONS
from llada_uni.world.drills import DRILLS, full_scene, listed, sample_drill
from llada_uni.world.split import is_held_out


@pytest.mark.parametrize("kind", DRILLS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_pictures_belong_to_the_split(kind, split):
    rng = random.Random(3)
    for _ in range(10):
        sample = sample_drill(rng, kind, split)
        assert sample.kind == "drill" and sample.scenes()
        assert all(is_held_out(scene) == (split == "heldout") for scene in sample.scenes())


def test_the_same_state_gives_the_same_sample():
    assert sample_drill(random.Random(5), "remove", "train") == sample_drill(random.Random(5), "remove", "train")


def test_full_scenes_hold_three_to_nine_different_things():
    rng = random.Random(0)
    sizes = set()
    for _ in range(60):
        names = full_scene(rng, "train").names()
        assert len(set(names)) == len(names)
        sizes.add(len(names))
    assert min(sizes) == 3 and max(sizes) == 9


def test_lists_read_like_a_sentence():
    assert listed(["cat"]) == "cat"
    assert listed(["cat", "dog", "owl"]) == "cat, the dog and the owl"


def test_where_says_every_place_in_the_order_of_the_question():
    rng = random.Random(1)
    for _ in range(20):
        sample = sample_drill(rng, "where", "train")
        scene, question = sample.turns[0].parts
        places = {thing.concept: POSITIONS[cell] for cell, thing in scene.things()}
        parts = [part.split(" ", 1) for part in sample.answer[0].split(", ")]
        assert all(places[name] == place for name, place in parts)
        assert sorted((name for name, _ in parts), key=f"{question} ".index) == [name for name, _ in parts]


def test_which_says_yes_of_what_is_there_alone():
    rng = random.Random(2)
    told = set()
    for _ in range(20):
        sample = sample_drill(rng, "which", "train")
        there = sample.scenes()[0].names()
        for part in sample.answer[0].split(", "):
            name, said = part.split()
            told.add(said)
            assert (said == "yes") == (name in there)
    assert told == {"yes", "no"}


@pytest.mark.parametrize("kind", ["remove", "extract", "restyle"])
def test_edits_change_what_is_named(kind):
    rng = random.Random(4)
    for _ in range(20):
        sample = sample_drill(rng, kind, "train")
        (before, words), after = sample.turns[0].parts, sample.answer[0]
        named = [thing.concept in words.replace(",", "").split() for thing in before.cells if thing is not None]
        kept = [after.cells[i] is not None for i, thing in before.things()]
        if kind == "remove":
            assert kept == [not name for name in named] and after.background == before.background
        elif kind == "extract":
            assert kept == named and after.background == "white"
        else:
            style = next(s for s in ("cartoon", "flat", "3d") if s in words.split())
            assert all(after.cells[i].style == style for (i, _), name in zip(before.things(), named, strict=True) if name)
            assert after.names() == before.names()
