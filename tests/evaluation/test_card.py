"""Tables for the model card: every number of the report stands in them, missing suites are dashes."""

from __future__ import annotations

from llada_uni.evaluation.card import tables


def _report(split: str, suites: dict) -> dict:
    return {"suites": suites, "settings": {"split": split, "seed": 7, "limit": 4}}


def _suite(score: float, **parts: dict) -> dict:
    return {
        "meaning": "drawn as asked",
        "overall": score,
        "interval": [score - 0.1, score + 0.1],
        "n": 4,
        "classes": {"two objects": {"score": score, "n": 4, "interval": [0.25, 0.75]}},
        "metrics": {"objects": 0.125},
        **parts,
    }


def test_numbers_are_copied_and_gaps_are_dashes():
    text = tables(
        [_report("heldout", {"geneval": _suite(0.5)}), _report("seen", {"geneval": _suite(0.875), "edit": _suite(0.25)})]
    )
    rows = text.splitlines()
    assert "| geneval (n 4) | 0.500 [0.400, 0.600] | 0.875 [0.775, 0.975] |" in rows
    assert "| edit (n 4) | - | 0.250 [0.150, 0.350] |" in rows
    assert "| two objects | 0.500 [0.250, 0.750] | 0.875 [0.250, 0.750] |" in rows
    assert "| *objects* (mean) | 0.125 | 0.125 |" in rows
    assert '"limit": 4' in text


def test_parts_have_rows_and_tables_of_their_own():
    wise = _suite(0.75, **{"without": _suite(0.25), "with": _suite(0.75)})
    rows = tables([_report("heldout", {"wise": wise})]).splitlines()
    assert "| wise: without | 0.250 [0.150, 0.350] |" in rows and "| wise: with | 0.750 [0.650, 0.850] |" in rows
    assert "### wise: with" in rows and "### wise" not in rows


def test_a_suite_that_failed_is_shown_without_numbers():
    text = tables([_report("heldout", {"intergen": {"meaning": "m", "failed": "no picture"}})])
    assert "| intergen (n 0) | - |" in text.splitlines()
