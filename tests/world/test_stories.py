from __future__ import annotations

import itertools
import random

import pytest

from llada_uni.world.checker import Reading
from llada_uni.world.concepts import COLORS
from llada_uni.world.evaluation.scoring import score_story
from llada_uni.world.scene import Thing
from llada_uni.world.stories import CHARACTERS, FRAMES, PEOPLE, PLACES, State, follows, opens, read_frame, usual_names
from llada_uni.world.tasks import Sample, sample_task

CAT, FOX, KEY = Thing("cat", "flat"), Thing("fox", "flat"), Thing("key", "flat")


def stories(split: str, count: int = 500) -> list[Sample]:
    rng = random.Random(21)
    return [sample_task(rng, "story", split) for _ in range(count)]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_story_is_right_by_its_own_rules(split: str) -> None:
    for story in stories(split):
        texts, scenes = story.answer[::2], story.answer[1::2]
        frames = [(t, Reading.of(s)) for t, s in zip(texts, scenes, strict=True)]
        scores = score_story(story.expect, frames)
        assert set(scores.values()) == {1.0}, (story, scores)
        assert len(frames) == FRAMES[story.kind] == story.expect["frames"]
        assert (f"in {story.kind} pictures" in story.turns[0].parts[0]) == (story.kind != "open")
        for text, scene in zip(texts, scenes, strict=True):
            assert read_frame(text).state.scene() == scene


def test_named_characters_persist_and_something_happens() -> None:
    for story in stories("train", 200):
        request, texts, scenes = story.turns[0].parts[0], story.answer[::2], story.answer[1::2]
        asked = texts[0] if story.kind == "open" else request
        for concept in story.expect["characters"]:
            name = next(p for p in PEOPLE if f"{p} the {concept}" in asked)
            assert f"{name} the {concept}" in texts[0]
            assert all(scene.names().count(concept) == 1 for scene in scenes)
        assert all(a != b for a, b in itertools.pairwise(scenes))


def test_who_is_not_named_has_a_usual_name() -> None:
    assert usual_names(["cat"]) == usual_names(["cat"]) and len(set(usual_names(CHARACTERS[:1] + CHARACTERS[8:9]))) == 2
    rng = random.Random(3)
    for story in (sample_task(rng, "story", kind="open") for _ in range(50)):
        characters, request = story.expect["characters"], story.turns[0].parts[0]
        assert not any(f" {name} " in request for name in PEOPLE) and " pictures" not in request
        for concept, name in zip(characters, usual_names(characters), strict=True):
            assert f"{name} the {concept}" in story.answer[0]


def test_places_are_colors() -> None:
    assert set(PLACES) == set(COLORS) and len({p.split()[-1] for p in PLACES.values()}) == len(COLORS)
    assert len(CHARACTERS) >= 30


def test_a_frame_is_read_from_its_words() -> None:
    frame = read_frame("Mia the cat finds a key at the top left: flat cat middle left , flat key top left on green.")
    assert frame.event == "mia the cat finds a key at the top left"
    assert frame.state == State(((CAT, 3), (KEY, 0)), "green")
    for text in (
        "",
        "mia the cat waits",
        "mia: a cat on green",
        "mia: flat cat top left on red",
        "x: flat cat top left, flat fox top left on green",
    ):
        assert read_frame(text) is None


@pytest.mark.parametrize(
    ("event", "after", "right"),
    [
        ("mia the cat finds a key at the top left", State(((CAT, 3), (FOX, 5), (KEY, 0)), "green"), True),
        ("mia the cat finds a key at the top right", State(((CAT, 3), (FOX, 5), (KEY, 0)), "green"), False),
        ("mia the cat runs to the top left", State(((CAT, 0), (FOX, 5)), "green"), True),
        ("leo the fox runs to the top left", State(((CAT, 0), (FOX, 5)), "green"), False),
        ("mia the cat and leo the fox go to the sea", State(((CAT, 3), (FOX, 5)), "blue"), True),
        ("mia the cat and leo the fox go to the city", State(((CAT, 3), (FOX, 5)), "blue"), False),
        ("mia the cat eats the fox", State(((CAT, 3),), "green"), True),
        ("mia the cat dances", State(((CAT, 3), (FOX, 5)), "green"), False),
        ("runs to the top left", State(((CAT, 0), (FOX, 5)), "green"), False),
    ],
)
def test_one_frame_follows_from_the_one_before(event: str, after: State, right: bool) -> None:
    assert follows(State(((CAT, 3), (FOX, 5)), "green"), event, after) == right


def test_a_story_opens_where_it_says() -> None:
    assert opens("mia the cat is in the park", State(((CAT, 4),), "green"))
    assert not opens("mia the cat is by the sea", State(((CAT, 4),), "green"))
