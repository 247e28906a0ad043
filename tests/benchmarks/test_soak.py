"""The curve of resident memory: what counts as growth, and its image."""

from __future__ import annotations

import io

from benchmarks.soak import COLUMNS, Curve, plot_curve


def test_growth_is_told_from_the_time_after_settling():
    curve = Curve(io.StringIO())
    minutes = range(0, 7200, 60)
    curve.samples = [(seconds, 100 + 100 * min(seconds, 1800) // 1800) for seconds in minutes]  # full after half an hour
    assert curve.growth() == (200, 200)
    curve.samples = [(seconds, 1000 + seconds) for seconds in minutes]
    assert curve.growth() == (1000 + (6480 + 7140) / 2, 1000 + (1800 + 2460) / 2)


def test_the_curve_becomes_an_image(tmp_path):
    (tmp_path / "curve.csv").write_text(f"{COLUMNS}\n0,5000000,0,0,0.00\n3600,6000000,9,0,1.00\n")
    plot_curve(tmp_path / "curve.csv", tmp_path / "out" / "curve.svg")
    assert "<svg" in (tmp_path / "out" / "curve.svg").read_text()
