"""Pictures with texts: splits are kept, records give what they say about a picture."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from llada_uni.data.pictures import open_pictures
from llada_uni.errors import UserError
from llada_uni.world.data.world_files import write_world
from llada_uni.world.data.world_records import MIXTURES, WorldRecords
from tests.data.helpers import assistant, drawing, image, question, text, user, write_records


def test_records_give_all_that_is_said_about_a_picture(tmp_path):
    dialogue = {
        "task": "dialogue",
        "messages": [
            user(image("blue.png"), text("what?")),
            assistant(text("blue")),
            user(text("sure?")),
            assistant(text("yes")),
        ],
    }
    caption = {"task": "caption", "messages": [user(image("blue.png"), text("describe it")), assistant(text("all blue"))]}
    edit = {"task": "edit", "messages": [user(image("red.png"), text("turn blue")), assistant(image("other.png"))]}
    write_records(tmp_path, [drawing("a red one"), drawing("red again"), question(), dialogue, caption, edit])
    Image.new("RGB", (10, 30), "green").save(tmp_path / "other.png")
    drawn = open_pictures(str(tmp_path), 16, "any").draw(random.Random(0), 60)
    said = {tuple(picture.image[0, 0].tolist()): picture for picture in drawn}
    assert said[0, 0, 255].caption == "all blue"
    assert said[0, 0, 255].questions == (("what?", "blue"), ("sure?", "yes"))
    assert {p.caption for p in drawn if p.questions == (("what color is it?", "red"),)} == {"a red one", "red again"}
    assert (said[0, 128, 0].caption, said[0, 128, 0].questions) == ("", ())  # an edit says nothing about one picture
    assert all(picture.image.shape == (16, 16, 3) for picture in drawn)
    described = open_pictures(str(tmp_path), 16, "any", need="caption").draw(random.Random(0), 40)
    assert all(picture.caption for picture in described)
    assert all(p.questions for p in open_pictures(str(tmp_path), 16, "any", "questions").draw(random.Random(0), 40))


@pytest.mark.parametrize("form", ["jsonl", "webdataset"])
def test_of_records_one_picture_in_twenty_is_held_out(tmp_path, form):
    write_world(WorldRecords(100, 0, MIXTURES["default"], 16), tmp_path, form)
    parts = {split: open_pictures(str(tmp_path), 16, split) for split in ("train", "heldout", "any")}
    names = {split: {picture.name for picture, _ in source.entries} for split, source in parts.items()}
    assert not names["train"] & names["heldout"]
    assert names["train"] | names["heldout"] == names["any"]
    assert len(parts["heldout"].entries) == -(-len(parts["any"].entries) // 20)
    assert parts["heldout"].draw(random.Random(0), 3)


def test_wrong_names(tmp_path):
    with pytest.raises(UserError, match="allowed: train, heldout, any"):
        open_pictures("world", 32, "test")
    with pytest.raises(UserError, match="not 'sound'"):
        open_pictures("world", 32, need="sound")
    write_records(tmp_path, [drawing()])
    with pytest.raises(UserError, match="has no pictures with questions in the split 'train'"):
        open_pictures(str(tmp_path), 32, need="questions")
