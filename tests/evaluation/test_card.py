"""Tables for the model card: every number of the report stands in them, missing suites are dashes."""

from __future__ import annotations

from llada_uni.evaluation.card import tables


def _report(split: str, suites: dict) -> dict:
    return {"suites": suites, "settings": {"split": split, "seed": 7, "limit": 4}}


def _suite(score: float) -> dict:
    return {
        "meaning": "asked objects right",
        "overall": score,
        "interval": [score - 0.1, score + 0.1],
        "n": 4,
        "classes": {"two": {"score": score, "n": 4, "interval": [0.25, 0.75]}},
        "metrics": {"exact": 0.125},
    }


def test_numbers_are_copied_and_gaps_are_dashes():
    text = tables([_report("heldout", {"t2i": _suite(0.5)}), _report("seen", {"t2i": _suite(0.875), "edit": _suite(0.25)})])
    rows = text.splitlines()
    assert "| t2i (n 4) | 0.500 [0.400, 0.600] | 0.875 [0.775, 0.975] |" in rows
    assert "| edit (n 4) | - | 0.250 [0.150, 0.350] |" in rows
    assert "| two | 0.500 [0.250, 0.750] | 0.875 [0.250, 0.750] |" in rows
    assert "| *exact* (mean) | 0.125 | 0.125 |" in rows
    assert '"limit": 4' in text and "asked objects right" in text


def test_a_suite_that_failed_is_shown_without_numbers():
    text = tables([_report("heldout", {"stories": {"meaning": "m", "failed": "no picture"}})])
    assert "| stories (n 0) | - |" in text.splitlines()
