"""The sheet shows every class, test images, their reconstructions and their edits, with seeds from 0 and nothing picked."""

from __future__ import annotations

import numpy as np
from PIL import Image

from llada_uni.photos.suite import PhotosSuite
from scripts import photos_sheet
from tests.photos.conftest import COLORS, write_tar
from tests.photos.test_suite import Painter


class Asked(Painter):
    """Keeps what it is asked for, with the seed."""

    def __init__(self, *args, **settings) -> None:
        super().__init__(*args, **settings)
        self.asked = []

    def generate_image(self, prompt, seed, decoder):
        self.asked.append((prompt, seed))
        return super().generate_image(prompt, seed, decoder)

    def edit_image(self, image, prompt, seed, decoder):
        self.asked.append((prompt, seed))
        return super().edit_image(image, prompt, seed, decoder)


def test_rows_of_the_sheet(tmp_path, monkeypatch):
    for split in ("train", "test"):
        write_tar(tmp_path / f"{split}-00.tar", split, 40, 0)
    monkeypatch.setenv("PHOTOS", str(tmp_path))
    painter = Asked(tmp_path, None, knows=True)
    suite, names = PhotosSuite("photos"), sorted(COLORS)
    rows = photos_sheet.rows_of(painter, suite, "turbo", columns=4)
    *drawn, shown, decoded, edited = [[painter._see(image) for image in row] for row in rows]
    labels = [names[label] for label in suite.tests.labels[:4]]
    assert drawn == [[name] * 4 for name in names]
    assert shown == decoded == labels and all(one != other for one, other in zip(edited, labels, strict=True))
    assert [seed for _, seed in painter.asked] == [0, 1, 2, 3] * 3
    assert {words for words, _ in painter.asked[:8]} == {
        w.format(a_class=f"a {name}") for name in names for w in suite.wordings[:4]
    }

    monkeypatch.setattr(photos_sheet.UniModel, "from_pretrained", lambda folder: painter)
    assert photos_sheet.main(["model", "--columns", "2", "--out", str(tmp_path / "sheet.png")]) == 0
    page = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert page.shape == (5 * 66 - 2, 2 * 66 - 2, 3)
