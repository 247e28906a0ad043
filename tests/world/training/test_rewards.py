"""The world's rewards: codes are read as the scenes they stand for, right answers get 1, records carry what is expected."""

from __future__ import annotations

import dataclasses
import random

import pytest

from llada_uni.data.records import BadRecords
from llada_uni.data.sources import open_source
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.training.reward.rewards import Answer, find_reward
from llada_uni.world.data.world_records import ScenePicture
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Scene
from llada_uni.world.split import is_held_out
from llada_uni.world.training.patch_tokenizer import FIRST, answers_of, question_of_patch
from llada_uni.world.training.rewards import judge_parts, judge_sample, read_codes


def codes_of(scene: Scene) -> ImageCodes:
    first = FIRST[question_of_patch()].numpy()
    return ImageCodes(tuple((first + answers_of(scene)).tolist()), 6, 6)


def drawn(scene: Scene) -> Answer:
    return Answer("", codes_of(scene), True, 36)


def records(name: str):
    source = open_source(name, 96)
    return [record for chunk in source.chunks() for record in source.read(chunk, BadRecords())]


def test_every_scene_is_read_back_from_its_codes():
    rng = random.Random(0)
    for _ in range(200):
        scene = sample_scene(rng, "any", numbers=0.2)
        reading = read_codes(codes_of(scene))
        assert reading.scene == scene
        assert not any(reading.unknown)


@pytest.mark.parametrize("question", range(4))
def test_a_cell_that_contradicts_itself_is_unknown(question):
    scene = sample_scene(random.Random(1), "any", things=3)
    codes = list(codes_of(scene).codes)
    cell, _ = scene.things()[0]
    at = (cell // 3 * 2 + question // 2) * 6 + cell % 3 * 2 + question % 2
    codes[at] = int(FIRST[question]) if question in (1, 3) else codes[at] + (1 if codes[at] != int(FIRST[question]) + 7 else -1)
    reading = read_codes(ImageCodes(tuple(codes), 6, 6))
    assert [i for i, lost in enumerate(reading.unknown) if lost] == [cell]
    assert reading.scene.cells[cell] is None


def test_codes_of_another_grid_are_refused():
    with pytest.raises(UserError, match="4 x 4 codes; those of the world have 6 x 6"):
        read_codes(ImageCodes((0,) * 16, 4, 4))


@pytest.mark.parametrize("mixture", ["counting", "talk", "unreasoned", "default"])
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_records_own_answer_is_right_and_another_is_not(mixture, split):
    judged = 0
    for record in records(f"world:60:5:{mixture}:{split}"):
        for turn in range(1, len(record.messages), 2) if record.learn_all else [len(record.messages) - 1]:
            asked = dataclasses.replace(record, messages=record.messages[: turn + 1])
            parts = asked.messages[-1].parts
            if len(parts) > 1 or record.task in ("story", "think"):
                continue
            judged += 1
            right = Answer(parts[0], None, True, 9) if isinstance(parts[0], str) else drawn(parts[0].scene)
            assert judge_sample(asked, right) == judge_parts(asked, right) == 1.0
            wrong = Answer("no such answer", None, True, 9) if isinstance(parts[0], str) else drawn(Scene((None,) * 9, "gray"))
            assert judge_sample(asked, wrong) == 0.0
            assert judge_parts(asked, wrong) < 1.0
    assert judged > 10


def test_what_must_be_worked_out_is_asked_for_without_the_reasoning():
    found = records("world:40:5:unreasoned")
    assert {record.task for record in found} == {"t2i"}
    assert all("thought" in record.meta and len(record.messages[-1].parts) == 1 for record in found)
    scenes = [part.scene for record in found for part in record.messages[-1].parts if isinstance(part, ScenePicture)]
    assert not any(is_held_out(scene) for scene in scenes)
    held_out = records("world:40:5:unreasoned:heldout")
    assert all(is_held_out(part.scene) for record in held_out for part in record.messages[-1].parts)


def test_they_have_short_names():
    assert find_reward("world") is judge_sample
    assert find_reward("world_parts") is judge_parts
