"""Runs evaluation suites: asks a model every question of each, collects the judged answers, and writes a report.

Suites by name (of plug-ins) or as objects -> `Question`s -> the model's public calls -> `Judged` answers ->
a report with 95 % intervals (report.py), as JSON and as a page (page.py).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError
from llada_uni.evaluation.page import SHOWN, write_page
from llada_uni.evaluation.report import build_report
from llada_uni.evaluation.suite import LIMIT, Calls, Judged, Plan, Suite, find_suites
from llada_uni.files.weights import atomic_file

HOPELESS = 10  # so many unusable answers from the start on, and the suite is given up


def run_suites(
    model: Any,
    suites: Iterable[str | Suite] = ("all",),
    limit: int | None = LIMIT,
    seed: int = 0,
    split: str = "heldout",
    json_path: str | Path | None = None,
    html_dir: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    settings: Calls | None = None,
    answers_path: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluates `model` (llada_uni.model.UniModel, or anything with its calls).

    limit, seed, split, settings: see `Plan`; sample i of a suite is answered with seed + i. progress(suite, done, total) is
    called after every answer. json_path, html_dir, answers_path: where to write the report, a page of right and wrong with
    images, and every answer (JSON lines).

    Returns {"suites": {NAME: {"meaning", "overall", "interval" (95 % Wilson), "n", "classes": {KEY: {"score", "n",
    "interval"}}, "metrics": {NAME: mean}, "errors", "seconds"}}, "settings": {...}}. "overall" is the mean of the classes.
    Suites of several parts hold each part in the same form under its name. "errors" counts answers that could not be used;
    they score 0. A suite whose first samples all fail has only "failed": the reason. UserError for unknown names, or when
    every suite fails.
    """
    chosen = _chosen(suites)
    if limit is not None and limit < 1:
        raise UserError(f"at least 1 sample a suite is needed, asked for {limit}")
    for suite in chosen:
        if suite.splits and split not in suite.splits:
            raise UserError(f"unknown split {split!r} of {suite.name}; known: {', '.join(suite.splits)}")
    plan = Plan(limit, seed, split, settings or {})
    pinned = {"limit": limit, "seed": seed, "split": split, "calls": _calls(chosen, plan)}
    pinned["model_defaults"] = _defaults_of(model)
    judged: list[Judged] = []
    shown: Counter[tuple[str, bool]] = Counter()
    failed: dict[str, str] = {}
    report: dict[str, Any] = {}
    for number, suite in enumerate(chosen, 1):
        try:
            for answer in _answers(model, suite, plan, progress):
                judged.append(answer)
                shown[answer.suite, answer.score == 1.0] += 1
                if html_dir is None or shown[answer.suite, answer.score == 1.0] > SHOWN:
                    answer.pictures = []  # images of thousands of answers do not fit into memory
        except UserError as error:  # the other suites may still work; the report says which did not
            failed[suite.name] = str(error)
            judged = [one for one in judged if one.suite != suite.name]
            if len(failed) == len(chosen):
                raise
        report = build_report(judged, chosen[:number], failed, pinned)
        if json_path is not None:  # after every suite: a long evaluation that is stopped keeps what it has
            _write(Path(json_path), json.dumps(report, indent=1) + "\n")
    if answers_path is not None:
        _write(Path(answers_path), "".join(json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in judged))
    if html_dir is not None:
        write_page(report, judged, Path(html_dir))
    return report


def _chosen(suites: Iterable[str | Suite]) -> list[Suite]:
    chosen: list[Suite] = []
    for suite in suites:
        chosen += find_suites([suite]) if isinstance(suite, str) else [suite]
    return chosen or find_suites([])


def _answers(
    model: Any, suite: Suite, plan: Plan, progress: Callable[[str, int, int], None] | None
) -> Iterator[Judged]:
    """Every answer of one suite. UserError when the first HOPELESS ones, or all, cannot be used."""
    total, errors = suite.total(plan), 0
    for done, question in enumerate(suite.questions(plan), 1):
        started = time.perf_counter()
        try:
            judged = question.ask(model)
        except UserError as error:  # an answer that cannot be used is a wrong answer, not the end of everything
            errors += 1
            if errors == done and done in (HOPELESS, total):
                raise  # but a model that cannot do the task at all is no model with a score of 0
            judged = Judged(question.prompt, {"right": 0.0}, got=f"error: {error}", error=True)
        judged.suite, judged.part, judged.key = suite.name, question.part, question.key
        judged.seconds = time.perf_counter() - started
        yield judged
        if progress is not None:
            progress(suite.name, done, total)


def _calls(suites: Sequence[Suite], plan: Plan) -> Calls:
    return {call: how for suite in suites for call, how in suite.calls(plan).items()}


def _defaults_of(model: Any) -> dict[str, Any] | None:
    """The settings that the model's directory brings, where it has any: None for other models."""
    defaults: Any = getattr(getattr(model, "parts", None), "defaults", None)
    return defaults.to_json() if hasattr(defaults, "to_json") else None


def _write(path: Path, text: str) -> None:
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from error
