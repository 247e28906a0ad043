from __future__ import annotations

import random

import pytest

from llada_uni.evaluation.scoring import score_story
from llada_uni.world.checker import Reading
from llada_uni.world.concepts import COLORS
from llada_uni.world.scene import Scene
from llada_uni.world.stories import CHARACTERS, PLACES, read_sentence
from llada_uni.world.tasks import Sample, sample_task


def reading(scene: Scene) -> Reading:
    return Reading(scene, (1.0,) * 4, (False,) * 4, (0.0,) * 4)


def stories(split: str, count: int = 800) -> list[Sample]:
    rng = random.Random(21)
    return [sample_task(rng, "story", split) for _ in range(count)]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_story_agrees_with_its_pictures(split: str) -> None:
    for story in stories(split):
        texts, scenes = story.answer[::2], story.answer[1::2]
        frames = [(t, reading(s)) for t, s in zip(texts, scenes, strict=True)]
        scores = score_story(story.expect, frames)
        assert set(scores.values()) == {1.0}, (story, scores)
        assert scenes == story.expect["scenes"]
        assert {"two": 2, "three": 3, "four": 4}[story.kind] == len(scenes)


def test_what_nobody_mentions_stays_where_it_was() -> None:
    for story in stories("train"):
        texts, scenes = story.answer[::2], story.answer[1::2]
        for text, before, after in zip(texts[1:], scenes, scenes[1:], strict=False):
            told = read_sentence(text)
            moved = told["at"][0] if told["at"] else None
            was = {t: i for i, t in before.things()}
            for cell, thing in after.things():
                if thing in was and thing.concept != moved:
                    assert was[thing] == cell, (text, before, after)
            if told["place"] is None:
                assert before.background == after.background


def test_a_wrong_picture_does_not_agree() -> None:
    rng = random.Random(4)
    for story in stories("train", 200):
        texts, scenes = story.answer[::2], list(story.answer[1::2])
        i = rng.randrange(len(scenes))
        cell = rng.choice(scenes[i].things())[0]
        scenes[i] = scenes[i].replace_cell(cell, None)
        frames = [(t, reading(s)) for t, s in zip(texts, scenes, strict=True)]
        assert score_story(story.expect, frames)["agreement"] < 1.0


@pytest.mark.parametrize(
    ("sentence", "things", "place", "at"),
    [
        ("a fox and a robot play in the park", ["fox", "robot"], "green", None),
        (
            "the fox and the robot find an apple at the top left",
            ["fox", "robot", "apple"],
            None,
            ("apple", 0),
        ),
        (
            "the fox goes to the bottom right and the robot waits with the key",
            ["fox", "robot", "key"],
            None,
            ("fox", 3),
        ),
        ("the fox leaves the key and goes to the top right", ["fox", "key"], None, ("fox", 1)),
        ("the fox eats the apple and keeps the key", ["fox", "key"], None, None),
        ("the fox and the robot eat the apple", ["fox", "robot"], None, None),
        ("The fox walks to the sea, with the ball.", ["fox", "ball"], "blue", None),
        ("nothing at all is at the top left", [], None, None),
        ("", [], None, None),
        ("eat the", [], None, None),
    ],
)
def test_reading_sentences(sentence: str, things: list[str], place: str | None, at: tuple | None) -> None:
    assert read_sentence(sentence) == {"things": things, "place": place, "at": at}


def test_every_color_is_a_place() -> None:
    assert set(PLACES) == set(COLORS)
    assert len({p.split()[-1] for p in PLACES.values()}) == len(COLORS)
    assert len(CHARACTERS) == len(set(CHARACTERS)) >= 12
