"""Pictures with texts: splits are kept, records give what they say about a picture."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from llada_uni.data.pictures import PictureSource, open_pictures
from llada_uni.data.records import BadRecords
from llada_uni.errors import UserError
from llada_uni.image.reader import image_size, open_image
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


def photos(folder: Path, sizes: list[tuple[int, int]], bad: Collection[int] = ()) -> Path:
    """Records with images of these (width, height), number n of color (n, n, n); the bad ones are cut off in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (number,) * 3).save(folder / f"{number}.png")
        if number in bad:
            whole = (folder / f"{number}.png").read_bytes()
            (folder / f"{number}.png").write_bytes(whole[: len(whole) // 2])
        records.append(drawing(f"shade {number}", f"{number}.png"))
    return write_records(folder, records).parent


def test_a_bad_image_stops_or_is_left_out_and_listed(tmp_path):
    folder = str(photos(tmp_path / "photos", [(40, 30)] * 12, bad={3, 7}))
    with pytest.raises(UserError, match=r"photos: [37]\.png: .*damaged"):
        open_pictures(folder, 16, "any").draw(random.Random(0), 100)
    bad = BadRecords("skip", most=2)
    source = open_pictures(folder, 16, "any", bad=bad)
    shades = {picture.caption for picture in source.draw(random.Random(0), 300)}
    assert shades == {f"shade {number}" for number in range(12)} - {"shade 3", "shade 7"}
    assert sorted(line.split(": ")[1] for line in bad.found) == ["3.png", "7.png"]  # each once
    with pytest.raises(UserError, match="that makes 2 that cannot be used, more than the 1 allowed"):
        open_pictures(folder, 16, "any", bad=BadRecords("skip", most=1)).draw(random.Random(0), 300)
    none = str(photos(tmp_path / "none", [(40, 30)] * 3, bad={0, 1, 2}))
    with pytest.raises(UserError, match="no image can be opened"):
        open_pictures(none, 16, "any", bad=BadRecords("skip")).draw(random.Random(0), 3)


def test_a_draw_depends_on_the_rng_alone_also_where_images_are_left_out(tmp_path):
    folder = str(photos(tmp_path / "photos", [(40, 30)] * 12, bad={3, 7}))

    def drawn(source: PictureSource, seed: int) -> list[str]:
        return [picture.caption for picture in source.draw(random.Random(seed), 9)]

    first, second = (open_pictures(folder, 16, "any", bad=BadRecords("skip")) for _ in range(2))
    early = [drawn(first, seed) for seed in range(6)]
    assert [drawn(second, seed) for seed in (4, 5)] == early[4:]  # as in a resumed run, which knows no bad image yet


@pytest.mark.parametrize("bad", [set(), {0, 5}])
def test_pictures_keep_their_shape_in_batches_of_one_size(tmp_path, bad):
    sizes = [(80, 40), (40, 80), (60, 60), (90, 44), (300, 20), (40, 44)] * 4
    folder = str(photos(tmp_path, sizes, bad))
    source = open_pictures(folder, 32, "any", bad=BadRecords("skip"), cell=4)
    seen = {}
    for seed in range(60):
        batch = source.draw(random.Random(seed), 5)
        assert len({picture.image.shape for picture in batch}) == 1
        seen |= {int(picture.caption.split()[1]): picture.image for picture in batch}
    assert seen.keys() == set(range(len(sizes))) - bad
    for number, shown in seen.items():
        high, wide = shown.shape[:2]
        assert high % 4 == wide % 4 == 0 and 0.75 * 32 * 32 <= high * wide <= 32 * 32
        shape = sizes[number][0] / sizes[number][1]
        assert number % 6 == 4 or abs(np.log(wide / high / shape)) < 0.25  # but for those that are longer than any size
        assert (shown == number).all()
    with pytest.raises(UserError, match="squares"):
        open_pictures("world", 32, cell=8)


def test_a_photo_on_its_side_has_the_size_it_is_seen_in(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("turned.jpg", "turned.png", "turned.webp"):
        Image.new("RGB", (40, 20)).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == open_image(tmp_path / name).size == (20, 40)
    whole = (tmp_path / "turned.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 20])
    assert image_size(tmp_path / "cut.png") == (20, 40)  # from the header alone
