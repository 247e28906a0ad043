"""docs/security.md names a test for each promise; the tests it names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_test_that_is_named_exists():
    files = {file.name: file.read_text() for file in (ROOT / "tests").rglob("test_*.py")}
    functions = set(re.findall(r"^(?:async )?def (test_\w+)", "\n".join(files.values()), re.MULTILINE))
    named = set(re.findall(r"`(?:tests/)?(test_\w+\.py)`", PAGE)) | set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 20
    assert named <= functions | set(files), named - functions - set(files)


def test_every_promise_names_one():
    promises = PAGE.partition("## What is promised")[2].partition("## What is not promised")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "|---"))]
    assert len(rows) > 15
    for row in rows:
        last = row.rstrip("| ").rpartition("|")[2]
        assert "test_" in last or "the same" in last, row


def test_every_file_that_is_named_exists():
    for name in set(re.findall(r"`(\w+\.py)`", PAGE)):
        assert list(ROOT.glob(f"llada_uni/**/{name}")) or list(ROOT.glob(f"tests/**/{name}")), name
