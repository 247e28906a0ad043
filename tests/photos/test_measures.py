"""Each measure against what it must be for data of known distribution."""

from __future__ import annotations

import numpy as np
import pytest

from llada_uni.photos.measures import copying, frechet, linear_probe, nearest_distance


def test_frechet_distance_of_normal_distributions():
    rng = np.random.default_rng(0)
    one = rng.normal(0, 1, (200_000, 3))
    other = rng.normal(0, 1, (200_000, 3)) * [2, 1, 0.5] + [1, 0, 0]
    # independent axes: squared distance of means and of deviations
    assert frechet(one, other) == pytest.approx(1 + (2 - 1) ** 2 + (0.5 - 1) ** 2, rel=0.02)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    mixed = one @ np.array([[1, 0.9, 0], [0, 1, 0], [0, 0, 1]])
    assert frechet(one, mixed) == pytest.approx(frechet(mixed, one), rel=1e-6) and frechet(one, mixed) > 0.1


def test_nearest_distance():
    rng = np.random.default_rng(0)
    asked, known = rng.normal(size=(7, 2, 3)), rng.normal(size=(11, 2, 3))
    by_hand = [min(np.linalg.norm(a - k) for k in known) for a in asked]
    assert nearest_distance(asked, known) == pytest.approx(by_hand, rel=1e-5)


def test_copies_are_found():
    rng = np.random.default_rng(0)
    training, tests, fresh = (rng.normal(size=(count, 8)) for count in (500, 300, 300))
    honest = copying(fresh, tests, training)
    assert honest["closer"] < 0.05 and honest["drawn_median"] == pytest.approx(honest["test_median"], rel=0.1)
    assert copying(training[:100] + 0.01, tests, training)["closer"] == 1.0


def test_linear_probe():
    rng = np.random.default_rng(0)
    labels, test_labels = rng.integers(0, 3, 400), rng.integers(0, 3, 200)
    centers = rng.normal(size=(3, 6)) * 3
    features, tests = (centers[which] + rng.normal(size=(len(which), 6)) for which in (labels, test_labels))
    assert linear_probe(features, labels, tests, test_labels) > 0.95
    assert linear_probe(rng.normal(size=(400, 6)), labels, rng.normal(size=(200, 6)), test_labels) < 0.5
