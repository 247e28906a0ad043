"""The suite asks, judges and adds up right, for a model that knows everything and for one that knows nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.evaluation.run import run_suites
from llada_uni.evaluation.suite import find_suites
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.photos.suite import PhotosSuite
from tests.photos.conftest import COLORS, colored


class Painter:
    """The model's calls. knows: it sees the class of an image in its color and draws the class that is asked for."""

    def __init__(self, folder: Path, tokenizer: ImageTokenizer, knows: bool) -> None:
        self.folder, self.knows, self.base = folder, knows, []
        self.parts = SimpleNamespace(image_tokenizer=tokenizer)

    def _see(self, image: Image.Image) -> str:
        mean = np.asarray(image).reshape(-1, 3).mean(0)
        return min(COLORS, key=lambda name: float(np.abs(mean - COLORS[name]).sum()))

    def _paint(self, name: str, seed: int) -> SimpleNamespace:
        kind = name if self.knows else "bird"
        image = Image.fromarray(colored(kind, np.random.default_rng(seed))).resize((64, 64), Image.Resampling.NEAREST)
        return SimpleNamespace(image=image, codes=kind)

    def understand(self, image, question, seed):
        return self._see(image) if self.knows else "deer"

    def generate_image(self, prompt, seed, decoder):
        return self._paint(next(name for name in COLORS if name in prompt), seed)

    def edit_image(self, image, prompt, seed, decoder):
        return self._paint(next(name for name in COLORS if name in prompt), seed)

    def encode_image(self, image):
        return self._see(image)

    def decode_codes(self, codes, seed, decoder):
        self.base += [codes] * (decoder == "base")
        return self._paint(codes, seed)


@pytest.fixture
def asked(photos, judge_folder, golden, tmp_path, monkeypatch):
    """Runs the suite on a painter: (its entry of the report, the painter)."""
    monkeypatch.setenv("PHOTOS", str(photos))
    (tmp_path / "judge").symlink_to(judge_folder)
    tokenizer = ImageTokenizer.from_pretrained(golden / "image_tokenizer")

    def run(knows: bool):
        painter = Painter(tmp_path, tokenizer, knows)
        report = run_suites(painter, ["photos"], limit=20, json_path=tmp_path / "report.json")
        assert json.loads((tmp_path / "report.json").read_text()) == report
        return report["suites"]["photos"], painter

    return run


def test_who_knows_everything(asked):
    entry, painter = asked(True)
    for part in ("read", "draw", "edit", "reconstruct"):
        assert entry[part]["overall"] == 1.0 and entry[part]["n"] == 20, part
    assert entry["draw"]["metrics"] == {"base": 1.0, "turbo": 1.0}
    assert sorted(painter.base) == sorted(4 * [*COLORS])  # 4 of 10 rounds, every class as often
    assert entry["judge_accuracy"] > 0.9 and entry["linear_probe"] > 0.9
    assert entry["frechet"]["images"] == 20
    assert entry["frechet"]["drawn_to_test"] < 10 * entry["frechet"]["training_to_training"] + 1
    assert 0 <= entry["nearest_training_image"]["pixels"]["closer"] <= 1


def test_who_knows_nothing(asked):
    entry, _ = asked(False)
    assert entry["read"]["overall"] == pytest.approx(0.5) and entry["read"]["classes"]["deer"]["score"] == 1.0
    assert entry["draw"]["classes"]["bird"]["score"] == 1.0 and entry["draw"]["classes"]["deer"]["score"] == 0.0


def test_it_is_asked_for_by_name_only(photos, monkeypatch, tmp_path):
    monkeypatch.setenv("PHOTOS", str(photos))
    assert "photos" not in [suite.name for suite in find_suites(["all"])]
    assert [suite.name for suite in find_suites(["photos"])] == ["photos"]
    painter = SimpleNamespace(folder=tmp_path, generate_image=None)
    suite = PhotosSuite("photos")
    with pytest.raises(UserError, match="PHOTOS_JUDGE=DIR"):
        suite._judge(painter)
