"""The studio on the true server and the shipped model: the walk of docs/studio.md, with its screenshots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.web.conftest import find_chromium

ROOT = Path(__file__).parents[3]
WIDE = ("ask", "brush", "chat", "dark", "draw", "edit", "live", "story", "thinking")
NARROW = ("ask", "begin", "brush", "chat", "dark", "draw", "edit", "history", "story")
NAMES = sorted([*WIDE, *(f"{name}-360" for name in NARROW)])


@pytest.mark.slow
def test_every_mode_works_and_has_its_screenshot(tmp_path: Path) -> None:
    if find_chromium() is None:
        pytest.skip("no Chromium found")
    command = [sys.executable, "scripts/studio_screenshots.py", "--out", str(tmp_path), "--chromium", find_chromium()]
    subprocess.run(command, cwd=ROOT, check=True, timeout=900)
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == NAMES
    for path in tmp_path.glob("*.png"):
        assert path.stat().st_size <= 250_000
        assert len(Image.open(path).convert("RGB").resize((64, 64)).getcolors(64 * 64)) > 50  # there is something to see


def test_the_documentation_shows_all_of_them_and_all_shortcuts() -> None:
    words = (ROOT / "docs" / "studio.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"studio/{name}.png" in words
        assert (ROOT / "docs" / "studio" / f"{name}.png").stat().st_size <= 250_000
    table = (ROOT / "llada_uni/serving/web/js/page/keys.js").read_text(encoding="utf-8").split("];")[0]
    keys = [line.split('"')[1] for line in table.splitlines() if line.startswith("  [")]
    assert len(keys) == 8
    for key in keys:
        assert f"| {key} |" in words
