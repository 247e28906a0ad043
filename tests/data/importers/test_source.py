"""Datasets read in place: spelled KIND:PATH, the records of an import, images drawn when they are needed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llada_uni.data.check import check_records
from llada_uni.data.pictures import open_pictures
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import CHUNK, conversations, open_source
from llada_uni.errors import UserError
from tests.data.importers.helpers import picture, put, said, tar_of


@pytest.fixture
def birds(tmp_path):
    for number, color in enumerate(("red", "green", "blue", "white")):
        put(tmp_path / "birds" / "train" / ("owl" if number % 2 else "polar_bear") / f"{number}.png", picture(color))
    put(tmp_path / "birds" / "test" / "owl" / "9.png", picture("black"))
    return tmp_path / "birds"


def test_a_dataset_is_spelled_by_kind_and_path(birds, tmp_path):
    put(tmp_path / "t.yaml", 'understand: [{ask: "which?", answer: "{class}"}]')
    source = open_source(f"folder:{birds}?source_split=train&templates={tmp_path / 't.yaml'}")
    found = list(conversations(source, BadRecords()))
    answers = ["owl", "owl", "polar bear", "polar bear"]
    assert sorted(said(one) for one in found) == [("understand", "which?", answer) for answer in answers]
    assert check_records(source).records == 4


def test_chunks_are_read_on_their_own(birds):
    source = open_source(f"folder:{birds}")
    chunks = source.chunks(2)
    assert [chunk.count for chunk in chunks] == [2, 2, 1] and len(source.chunks(CHUNK)) == 1
    parts = [one.id for chunk in reversed(chunks) for one in open_source(f"folder:{birds}").read(chunk, BadRecords())]
    assert sorted(parts) == sorted(one.id for one in conversations(source, BadRecords()))


def test_its_name_tells_what_is_in_it(birds):
    before = open_source(f"folder:{birds}").name
    assert open_source(f"folder:{birds}").name == before != open_source(f"folder:{birds}?languages=de").name
    put(birds / "train" / "owl" / "new.png", picture())
    assert open_source(f"folder:{birds}").name != before


def test_pixel_stages_draw_from_it_and_name_an_image_that_cannot_be_opened(birds):
    drawn = open_pictures(f"folder:{birds}", 8, "any", need="caption").draw(random.Random(0), 40)
    assert {tuple(one.image[4, 4]) for one in drawn} >= {(255, 0, 0), (0, 0, 0)} and all(one.caption for one in drawn)
    put(birds / "train" / "owl" / "torn.png", b"\x89PNG\r\n\x1a\n junk")
    bad = BadRecords("skip", 3)
    open_pictures(f"folder:{birds}?source_split=train", 8, "any", bad=bad).draw(random.Random(0), 40)
    assert len(bad.found) == 1 and "train/owl/torn" in bad.found[0]


def test_parquet_is_read_row_by_row_from_disk(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(tmp_path / "cache"))
    images = [{"bytes": picture(color), "path": None} for color in ("red", "blue")]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    datasets.Dataset.from_dict({"img": images, "label": [1, 0]}, features).to_parquet(str(tmp_path / "train.parquet"))
    source = open_source(f"hf:{tmp_path / 'train.parquet'}?column.animal=label")
    records = [one for one in conversations(source, BadRecords()) if one.task == "understand"]
    assert [said(one)[2] for one in records] == ["dog", "cat"]
    assert [next(one.pictures()).open().getpixel((0, 0)) for one in reversed(records)] == [(0, 0, 255), (255, 0, 0)]


def test_a_tar_with_a_question_mark_in_its_name(tmp_path):
    tar_of(tmp_path / "a?b" / "one.tar", [("owl/1.png", picture())])
    assert len(list(conversations(open_source(f"folder:{tmp_path / 'a?b'}?"), BadRecords()))) == 3


@pytest.mark.parametrize(
    ("spelling", "said"),
    [
        ("folder:", "which dataset"),
        ("folder:x?split=train", "unknown option 'split'; allowed: source_split=..., "),
        ("folder:x?train", "unknown option 'train'; allowed: source_split=..., "),
        ("folder:x?seed=one", "seed=one; allowed: a number from 0"),
        ("folder:x?languages=xx", "no built-in templates in 'xx'"),
        ("folder:x?languages=en&templates=t.yaml", "not both"),
        ("folder:/nowhere", "there are no class folders at /nowhere"),
        ("zip:x", "there are no records at zip:x: expected .* or a dataset in its own format"),
    ],
)
def test_what_cannot_be_opened_is_said(spelling, said):
    with pytest.raises(UserError, match=said):
        open_source(spelling).chunks()
