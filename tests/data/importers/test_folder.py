"""Class folders and tars of them."""

from __future__ import annotations

import pytest

from llada_uni.data.importers.items import ReadOptions
from llada_uni.errors import UserError
from tests.data.importers.helpers import color_of, imported, picture, put, said, tar_of, tasks


def class_folders(root):
    put(root / "train" / "polar_bear" / "1.jpg", picture("white", "JPEG"))
    put(root / "train" / "owl" / "1.png", picture("red"))
    put(root / "train" / "owl" / "2.webp", picture("blue", "WEBP"))
    put(root / "test" / "owl" / "3.png", picture("green"))
    for clutter in ("._1.png", ".DS_Store", "notes.txt"):
        put(root / "train" / "owl" / clutter, b"junk")
    return root


def test_folders_become_records_of_every_task(tmp_path):
    result, records = imported("folder", class_folders(tmp_path / "in"), tmp_path / "out")
    assert result.items == 4 and result.records == {"": 12}
    assert tasks(records) == {"t2i": 4, "caption": 4, "understand": 4}
    answers = {said(r)[2] for r in records if r.task == "understand"}
    assert answers == {"polar bear", "owl"}
    assert {r.id for r in records} >= {"train/polar_bear/1#0", "test/owl/3#2"}
    assert {said(r)[2] for r in records if r.task == "caption"} == {"a photo of a polar bear", "a photo of an owl"}


def test_one_split_of_the_dataset_and_tars_give_the_same(tmp_path):
    root = class_folders(tmp_path / "in")
    options = {"read": ReadOptions(source_split="train")}
    _, files = imported("folder", root, tmp_path / "one", **options)
    members = [(f"{p.parent.name}/{p.name}", p.read_bytes()) for p in sorted((root / "train").rglob("*.*"))]
    tars = tmp_path / "tars"
    tar_of(tars / "train-00.tar", [(f"train/{name}", data) for name, data in members[:2]])
    tar_of(tars / "train-01.tar", [(f"./train/{name}", data) for name, data in members[2:]])
    tar_of(tars / "test-00.tar", [("test/owl/3.png", picture("green"))])
    _, packed = imported("folder", tars, tmp_path / "two", **options)
    assert len(files) == 9
    assert sorted(map(said, packed)) != [] and {said(r)[2] for r in packed} == {said(r)[2] for r in files}
    assert sorted(color_of(r) for r in packed) == sorted(color_of(r) for r in files)


def test_images_outside_class_folders_are_named(tmp_path):
    put(tmp_path / "in" / "stray.png", picture())
    put(tmp_path / "in" / "owl" / "1.png", picture())
    with pytest.raises(UserError, match=r"stray\.png: lies in no class folder"):
        imported("folder", tmp_path / "in", tmp_path / "out")
    result, records = imported("folder", tmp_path / "in", tmp_path / "skipped", on_bad="skip")
    assert len(result.bad) == 1 and len(records) == 3
    with pytest.raises(UserError, match="there are no class folders at"):
        imported("folder", tmp_path / "gone", tmp_path / "none")
    put(tmp_path / "torn.tar", b"junk" * 200)
    with pytest.raises(UserError, match=r"torn\.tar is no tar file"):
        imported("folder", tmp_path / "torn.tar", tmp_path / "torn")
