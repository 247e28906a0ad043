"""What every test may ask for: the recorded numbers, the real classes on very small sizes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """A whole model directory with random weights and what the released algorithms give on it (see its
    README)."""
    return Path(__file__).parent / "parity" / "golden"
