"""Datasets of the Hugging Face library, made here: parquet files and a saved dataset, streamed."""

from __future__ import annotations

import pytest

from llada_uni.data.importers.items import ReadOptions
from llada_uni.errors import UserError
from tests.data.importers.helpers import color_of, imported, picture, said

datasets = pytest.importorskip("datasets")


def make():
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "label": datasets.ClassLabel(names=["polar_bear", "owl"]),
            "captions": [datasets.Value("string")],
        }
    )
    rows = {
        "img": [{"bytes": picture("red"), "path": None}, {"bytes": picture("blue", "JPEG"), "path": "b.jpg"}],
        "label": [0, 1],
        "captions": [["a bear", "white bear"], ["an owl"]],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def check(records):
    assert {said(r)[2] for r in records if r.task == "understand"} == {"polar bear", "owl"}
    drawn = {said(r)[1]: color_of(r) for r in records if r.task == "t2i"}
    assert len(drawn) == 2 and sorted(color[0] > 200 for color in drawn.values()) == [False, True]


def test_parquet_and_saved_datasets_give_the_same(tmp_path):
    made = make()
    made.to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    made.select([0]).to_parquet(tmp_path / "hub" / "test-00000-of-00001.parquet")
    read = ReadOptions(source_split="train")
    _, parquet = imported("hf", tmp_path / "hub", tmp_path / "one", read=read)
    check(parquet)
    made.save_to_disk(tmp_path / "saved")
    _, saved = imported("hf", tmp_path / "saved", tmp_path / "two")
    check(saved)
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "both")
    _, both = imported("hf", tmp_path / "both", tmp_path / "three", read=read)
    assert [said(r) for r in parquet] == [said(r) for r in saved] == [said(r) for r in both]
    _, one = imported("hf", tmp_path / "hub" / "test-00000-of-00001.parquet", tmp_path / "four")
    assert len({r.id.split("#")[0] for r in one}) == 1


def test_faults_are_named(tmp_path):
    made = make()
    datasets.DatasetDict({"a": made, "b": made}).save_to_disk(tmp_path / "both")
    with pytest.raises(UserError, match=r"has no split None; allowed: a, b"):
        imported("hf", tmp_path / "both", tmp_path / "out")
    made.remove_columns("img").to_parquet(tmp_path / "text.parquet")
    with pytest.raises(UserError, match=r"has no column of images; name one with --column image=NAME"):
        imported("hf", tmp_path / "text.parquet", tmp_path / "out2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there are no .parquet or .arrow files and no saved dataset at"):
        imported("hf", tmp_path / "empty", tmp_path / "out3")
    (tmp_path / "bad.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"the datasets library cannot (open|read)"):
        imported("hf", tmp_path / "bad.parquet", tmp_path / "out4")
