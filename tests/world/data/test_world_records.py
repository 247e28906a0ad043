"""The small world as records: any part made on its own, the same on disk as made directly, splits and mixtures kept."""

from __future__ import annotations

import random

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_uni.data.records import BadRecords
from llada_uni.data.sources import conversations, open_source
from llada_uni.errors import UserError
from llada_uni.world.data.world_files import write_world
from llada_uni.world.data.world_records import MIXTURES, WorldRecords, parse_shares
from llada_uni.world.render import render_array
from llada_uni.world.split import is_held_out


def all_of(source, bad=None):
    return list(conversations(source, bad or BadRecords()))


def plain(conversation):
    """A conversation as texts and pixels, whatever its pictures are called."""
    parts = [
        [part if isinstance(part, str) else part.open().tobytes() for part in message.parts]
        for message in conversation.messages
    ]
    return conversation.task, parts


def test_tar_shards_are_those_of_webdataset(tmp_path):
    write_world(WorldRecords(30, 4, MIXTURES["default"], 32), tmp_path, "webdataset")
    (ours,) = tmp_path.glob("*.tar")
    samples = list(webdataset.WebDataset(str(ours), shardshuffle=False).decode())
    assert len(samples) == 30 and all(sample["json"]["messages"] for sample in samples)


def test_names_that_are_not_understood():
    for name in ("world:", "world:x:1", "world:5:1:default:train:9"):
        with pytest.raises(UserError, match="allowed: world:COUNT:SEED"):
            open_source(name)
    allowed = "first, places, default, reading, drills, finding, asking, late, hard"
    with pytest.raises(UserError, match=f"unknown mixture 'all'; allowed: {allowed}"):
        open_source("world:5:1:all")


@pytest.mark.parametrize("form", ["jsonl", "webdataset"])
def test_the_world_on_disk_is_the_world_made_directly(tmp_path, form):
    write_world(WorldRecords(120, 3, MIXTURES["default"], 32), tmp_path, form)
    direct = open_source("world:120:3", side=32)
    assert [plain(c) for c in all_of(open_source(tmp_path))] == [plain(c) for c in all_of(direct)]
    assert [plain(c) for c in all_of(open_source("world:9:4", side=32))] != [plain(c) for c in all_of(direct)][:9]


def test_a_mixture_of_few_things_holds_no_more(tmp_path):
    few = WorldRecords.from_name("world:60:3:places", 32)
    counts = {len(scene.things()) for sample in few.samples(0, 60) for scene in sample.scenes()}
    assert few.most == 2 and counts == {0, 1, 2}  # 0: what was there is taken away
    assert few.name != WorldRecords(60, 3, MIXTURES["places"], 32).name
    plain_world = WorldRecords(60, 3, MIXTURES["default"], 32)
    assert any(len(scene.things()) > 2 for sample in plain_world.samples(0, 60) for scene in sample.scenes())


def test_the_same_settings_write_the_same_bytes_and_go_on_after_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("llada_uni.world.data.world_files.SHARD_RECORDS", 40)
    world = WorldRecords(100, 3, MIXTURES["reading"], 32)
    for form in ("jsonl", "webdataset"):
        write_world(world, tmp_path / form, form)
        contents = {p.relative_to(tmp_path / form): p.read_bytes() for p in (tmp_path / form).rglob("*") if p.is_file()}
        second = sorted((tmp_path / form).glob("records-*"))[1]
        second.unlink()
        calls = []
        write_world(world, tmp_path / form, form, lambda done, total, calls=calls: calls.append((done, total)))
        assert calls == [(1, 3), (2, 3), (3, 3)]
        assert {p.relative_to(tmp_path / form): p.read_bytes() for p in (tmp_path / form).rglob("*") if p.is_file()} == contents
        with pytest.raises(UserError, match="holds records of other settings"):
            write_world(WorldRecords(100, 4, MIXTURES["reading"], 32), tmp_path / form, form)
    with pytest.raises(UserError, match="allowed: jsonl, webdataset"):
        write_world(world, tmp_path / "x", "csv")


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 350), count=st.integers(1, 120))
def test_any_part_of_the_world_can_be_made_on_its_own(start, count):
    world = WorldRecords(500, 1, MIXTURES["reading"], 32)
    assert list(world.samples(start, count)) == list(world.samples(0, start + count))[start:]


def test_splits_and_mixtures_are_kept():
    train = list(WorldRecords(400, 0, MIXTURES["default"]).samples(0, 400))
    assert not any(is_held_out(scene) for sample in train for scene in sample.scenes())
    assert {sample.task for sample in train} == {task for task, _ in MIXTURES["default"]}
    heldout = WorldRecords(100, 0, parse_shares(["t2i=1", "understand/counting=3"]), split="heldout").samples(0, 100)
    kinds = [(sample.task, sample.kind if sample.task == "understand" else None) for sample in heldout]
    assert set(kinds) == {("t2i", None), ("understand", "counting")}
    assert 60 <= kinds.count(("understand", "counting")) <= 90
    reading = WorldRecords(2000, 0, MIXTURES["reading"]).samples(0, 2000)
    drawn = [(sample.task, sample.kind) for sample in reading]
    assert all(abs(drawn.count(kind) / 2000 - share) < 0.04 for kind, share in MIXTURES["reading"].items())


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        ("poem=1", "unknown task"),
        ("inpaint=1", "unknown task"),
        ("t2i/poem=1", "unknown kind"),
        ("t2i=x", "not understood"),
        ("t2i=0", "above 0"),
    ],
)
def test_shares_that_are_not_understood(share, reason):
    with pytest.raises(UserError, match=reason):
        parse_shares([share])


def test_pictures_of_the_world_are_its_renderings():
    source = open_source("world:20:0", side=32)
    for conversation, sample in zip(all_of(source), source.world.samples(0, 20), strict=True):
        for picture, scene in zip(conversation.pictures(), sample.scenes(), strict=True):
            assert picture.open().tobytes() == render_array(scene, 32).tobytes()
    assert random.Random("world/0/0").random() == pytest.approx(0.3980, abs=1e-4)  # seeds by text are the same everywhere
