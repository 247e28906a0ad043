"""COCO captions: several captions an image, grouped from a file in any order; every fault named."""

from __future__ import annotations

import json

import pytest

from llada_uni.data.importers.wordings import Wording, Wordings
from llada_uni.errors import UserError
from tests.data.importers.helpers import color_of, imported, picture, put, said

CAPTIONS = Wordings({"t2i": (Wording("{caption}"),), "caption": (Wording("describe the image", "{caption}"),)})


def coco(root, annotations, images=((7, "seven.jpg"), (3, "three.png"))):
    put(root / "val2017" / "seven.jpg", picture("red", "JPEG"))
    put(root / "val2017" / "three.png", picture("blue"))
    data = {
        "info": {"year": 2017},
        "images": [{"id": number, "file_name": name, "height": 16, "width": 24} for number, name in images],
        "annotations": [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(annotations)],
    }
    put(root / "annotations" / "captions_val2017.json", b"\xef\xbb\xbf" + json.dumps(data).encode())
    return root


def test_captions_are_grouped_by_image(tmp_path):
    root = coco(tmp_path / "in", [(7, "a red\n thing "), (3, "blue"), (7, "red again")])
    result, records = imported("coco", root, tmp_path / "out", wordings=CAPTIONS)
    assert result.items == 2 and len(records) == 4
    by_color = {color_of(r)[2] > 128: set() for r in records}
    for record in records:
        by_color[color_of(record)[2] > 128].add(said(record)[1] if record.task == "t2i" else said(record)[2])
    assert by_color[True] == {"blue"} and by_color[False] <= {"a red thing", "red again"}
    assert records[0].id == "val2017/000000000003#0"


def test_faults_are_named(tmp_path):
    root = coco(tmp_path / "a", [(7, "x"), (9, "no such image")])
    with pytest.raises(UserError, match=r"\[image 9\]: captions name the image 9, which the list of images lacks"):
        imported("coco", root, tmp_path / "out")
    root = coco(tmp_path / "b", [(7, "x"), (8, "y")], [(7, "seven.jpg"), (8, "../../secret.png")])
    put(tmp_path / "secret.png", picture())
    with pytest.raises(UserError, match=r"leads out of"):
        imported("coco", root, tmp_path / "out2")
    put(tmp_path / "c" / "captions_x.json", '{"images": [], "annotations": [{"image_id": "7"')
    with pytest.raises(UserError, match=r"captions_x\.json is not JSON"):
        imported("coco", tmp_path / "c", tmp_path / "out3")
    put(tmp_path / "d" / "captions_x.json", '{"images": [], "annotations": [{"image_id": "7", "caption": "x"}]}')
    with pytest.raises(UserError, match=r"annotation 1 has no image_id that is a whole number"):
        imported("coco", tmp_path / "d", tmp_path / "out4")
    with pytest.raises(UserError, match="there are no COCO captions at"):
        imported("coco", tmp_path / "gone", tmp_path / "out5")
