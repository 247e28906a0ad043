"""Edits between classes of photographs: the answer is of the wanted class, and laid out like the source."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from PIL import Image

from llada_uni.data.check import check_records
from llada_uni.data.importers.run import import_data
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import conversations, open_source
from llada_uni.errors import UserError
from scripts.photos_edits import FILE, nearest, thumbnail, write_edits


def test_the_nearest_row_is_found_in_pieces():
    rng = np.random.default_rng(0)
    queries, candidates = rng.random((30, 8), np.float32), rng.random((17, 8), np.float32)
    slow = [min(range(17), key=lambda c: float(((q - candidates[c]) ** 2).sum())) for q in queries]
    assert nearest(queries, candidates).tolist() == slow


def test_edits_lead_to_another_class_with_a_similar_layout(tmp_path):
    rng = random.Random(0)
    for kind in ("cat", "dog", "owl"):
        for number in range(8):
            image = Image.new("RGB", (16, 16), tuple(rng.randrange(256) for _ in range(3)))
            image.paste(tuple(rng.randrange(256) for _ in range(3)), (0, 0, 16, 8))
            (tmp_path / "in" / kind).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "in" / kind / f"{number}.png")
    out = tmp_path / "out"
    import_data("folder", str(tmp_path / "in"), out)
    assert write_edits(out) == 24
    report = check_records(open_source(out))
    assert not report.bad and report.tasks["edit"].records == 24
    classes, made = {}, []
    for conversation in conversations(open_source(out), BadRecords()):
        if conversation.task == "edit":
            made.append(conversation)
        else:
            classes[next(conversation.pictures()).name] = conversation.id.split("/")[0]
    chosen, others = [], []
    for edit in made:
        source, answer = edit.pictures()
        asked = re.search(r"(cat|dog|owl)$", edit.messages[0].text())[1]
        assert classes[answer.name] == asked != classes[source.name]
        seen = thumbnail(source.open())
        distances = {n: float(((thumbnail(Image.open(out / n)) - seen) ** 2).sum()) for n, c in classes.items() if c == asked}
        chosen.append(distances[answer.name])
        others.append(min(distances.values()))
    assert chosen == others
    first = (out / FILE).read_bytes()
    write_edits(out)
    assert (out / FILE).read_bytes() == first


def test_one_class_is_not_enough(tmp_path):
    (tmp_path / "in" / "cat").mkdir(parents=True)
    Image.new("RGB", (16, 16), "red").save(tmp_path / "in" / "cat" / "1.png")
    import_data("folder", str(tmp_path / "in"), tmp_path / "out")
    with pytest.raises(UserError, match="has images of 1 classes; edits between classes need two"):
        write_edits(tmp_path / "out")
