"""The measure of a judgment: pairs in the right order, over all candidates and among those of one prompt; and the rows."""

from __future__ import annotations

from benchmarks.best_of_n import auc, auc_within, rows


def candidate(score: float, right: bool) -> dict:
    return {"score": score, "right": right, "evaluations": 4, "judged": 2}


def prompt(single: bool, *candidates: tuple[float, bool]) -> dict:
    return {"single": {"right": single, "evaluations": 8}, "candidates": [candidate(*one) for one in candidates]}


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    assert auc([(1.0, True), (0.0, False)]) == 1.0 and auc([(0.0, True), (1.0, False)]) == 0.0
    assert auc([(1.0, True), (1.0, False)]) == 0.5
    assert auc([(3.0, True), (1.0, True), (2.0, False), (0.0, False)]) == 0.75
    assert auc([(1.0, True)]) is None and auc([]) is None


def test_within_a_prompt_only_its_own_candidates_are_compared():
    prompts = [prompt(True, (5.0, True), (6.0, False)), prompt(True, (1.0, True), (0.0, False)), prompt(True, (9.0, False))]
    assert auc_within(prompts) == 0.5
    assert auc_within(prompts[2:]) is None


def test_the_rows_compare_the_ways_to_draw():
    prompts = [
        prompt(False, (1.0, True), (0.0, False)),
        prompt(True, (1.0, False), (0.0, True)),
        prompt(True, (0.0, False), (1.0, False)),
        prompt(False, (0.0, True), (1.0, True)),
    ]
    directory, one, best, there_is = rows("geneval", prompts)
    assert directory.ours == 0.5 and directory.more["evaluations"] == 8
    assert one.ours == 0.5 and one.more["evaluations"] == 4
    assert best.ours == 0.5 and best.more["evaluations"] == 2 * (4 + 2) and best.theirs == 0.5
    assert there_is.ours == 0.75
    scored = [(one["score"], one["right"]) for one_prompt in prompts for one in one_prompt["candidates"]]
    assert best.more["AUC within a prompt"] == 0.5 and best.more["AUC"] == auc(scored)
