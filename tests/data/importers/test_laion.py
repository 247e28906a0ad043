"""LAION's WebDataset tars."""

from __future__ import annotations

import json

import pytest

from llada_uni.data.importers.items import ReadOptions
from llada_uni.errors import UserError
from tests.data.importers.helpers import color_of, imported, picture, said, tar_of


def sample(key: str, color: str, caption: str, **more) -> list[tuple[str, bytes]]:
    facts = {"caption": caption, "width": 24, "similarity": 0.31, "exif": "{}", **more}
    return [
        (f"{key}.jpg", picture(color, "JPEG")),
        (f"{key}.txt", caption.encode()),
        (f"{key}.json", json.dumps(facts).encode()),
    ]


def test_tars_of_a_folder(tmp_path):
    tar_of(tmp_path / "in" / "00000.tar", [*sample("000000000", "red", "a red thing"), ("._000000001.txt", b"junk")])
    tar_of(tmp_path / "in" / "00001.tar", sample("000010000", "blue", "etwas Blaues", alt="blue"))
    _, records = imported("laion", tmp_path / "in", tmp_path / "out")
    t2i = {said(r)[1]: color_of(r) for r in records if r.task == "t2i"}
    assert set(t2i) == {"a red thing", "etwas Blaues"} and t2i["a red thing"][0] > 200
    assert {r.id for r in records} == {f"0000{n}/0000{n}0000#{i}" for n in (0, 1) for i in (0, 1)}
    _, records = imported(
        "laion", tmp_path / "in" / "00001.tar", tmp_path / "alt", read=ReadOptions(columns={"caption": "alt"})
    )
    assert said(records[0])[1] == "blue"


def test_faults_are_named_by_tar_and_key(tmp_path):
    good = sample("a", "red", "fine")
    for name, members, reason in (
        ("double", [*sample("k", "red", "x"), *sample("k", "red", "x")], r"\[k\]: two samples with one key"),
        ("noimage", sample("k", "red", "x")[1:], r"\[k\]: a sample has one image; this one has 0 \(txt, json\)"),
        ("json", [sample("k", "red", "x")[0], ("k.json", b"{")], r"\[k\]: the \.json is not JSON"),
        ("text", [sample("k", "red", "x")[0], ("k.txt", b"\xff\xfe")], r"\[k\]: the \.txt is not UTF-8"),
    ):
        path = tar_of(tmp_path / f"{name}.tar", [*good, *members])
        with pytest.raises(UserError, match=reason):
            imported("laion", path, tmp_path / name)
        result, records = imported("laion", path, tmp_path / f"{name}-skip", on_bad="skip")
        assert len(result.bad) == 1 and {r.id for r in records} == {f"{name}/a#0", f"{name}/a#1"}
