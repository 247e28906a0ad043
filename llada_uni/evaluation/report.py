"""Judged answers to numbers: means of classes with 95 % intervals, as a nested dict and as a plain table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llada_uni.evaluation.intervals import wilson
from llada_uni.evaluation.suite import Judged, Suite


def _share(total: float, n: int) -> dict[str, Any]:
    low, high = wilson(total, n)
    return {"n": n, "interval": [low, high]}


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """One suite, or one part of it: overall (mean of its classes), interval, n, classes, metrics, errors, seconds."""
    classes = {}
    for key in sorted({r.key for r in judged}):
        scores = [r.score for r in judged if r.key == key]
        classes[key] = {"score": sum(scores) / len(scores), **_share(sum(scores), len(scores))}
    overall = sum(c["score"] for c in classes.values()) / len(classes)
    metrics = {}
    for name in sorted({name for r in judged for name in r.scores} - {"right"}):
        values = [r.scores[name] for r in judged if name in r.scores]
        metrics[name] = sum(values) / len(values)
    return {
        "overall": overall,
        **_share(overall * len(judged), len(judged)),
        "classes": classes,
        "metrics": metrics,
        "errors": sum(r.error for r in judged),
        "seconds": sum(r.seconds for r in judged),
    }


def _entry(judged: Sequence[Judged], suite: Suite) -> dict[str, Any]:
    """A suite, with its parts where it has some."""
    names = list(dict.fromkeys(one.part for one in judged))
    if names == [""]:
        return summary(judged)
    parts = {part: summary([one for one in judged if one.part == part]) for part in names}
    if suite.head is not None:
        return {**parts[suite.head], **parts}
    whole = summary(judged)
    overall = sum(part["overall"] for part in parts.values()) / len(parts)
    return {**whole, "overall": overall, **_share(overall * whole["n"], whole["n"]), **parts}


def parts_of(suite: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of a suite in a report, by name."""
    return {name: part for name, part in suite.items() if isinstance(part, dict) and "overall" in part}


def build_report(
    judged: Sequence[Judged], suites: Sequence[Suite], failed: dict[str, str], settings: dict[str, Any]
) -> dict[str, Any]:
    """The report described at `run_suites`. failed: reasons by the suite's name."""
    report: dict[str, Any] = {"suites": {}, "settings": settings}
    for suite in suites:
        mine = [one for one in judged if one.suite == suite.name]
        found = {"failed": failed[suite.name]} if suite.name in failed else _entry(mine, suite) | suite.facts(mine)
        report["suites"][suite.name] = {"meaning": suite.meaning, **found}
    return report


def _row(name: str, indent: int, one: dict[str, Any], score: float, meaning: str = "") -> str:
    low, high = one["interval"]
    return f"{' ' * indent}{name:{24 - indent}} {score:6.3f}  [{low:.3f}, {high:.3f}]  n={one['n']}  {meaning}".rstrip()


def _rows(one: dict[str, Any], indent: int) -> list[str]:
    """Classes and metrics of a suite or a part."""
    rows = [_row(key, indent, c, c["score"]) for key, c in one["classes"].items()]
    return [*rows, " " * indent + ", ".join(f"{k} {v:.3f}" for k, v in one["metrics"].items())]


def format_table(report: dict[str, Any]) -> str:
    """The report as plain text, one row a suite, a part and a class, and the settings it was made with."""
    rows = []
    for name, suite in report["suites"].items():
        if "failed" in suite:
            rows.append(f"{name:24} FAILED: {suite['failed']}")
            continue
        rows.append(_row(name, 0, suite, suite["overall"], suite["meaning"]))
        parts = parts_of(suite)
        for part, found in parts.items():
            rows += [_row(part, 2, found, found["overall"]), *_rows(found, 4)]
        if not parts:
            rows += _rows(suite, 2)
    used = report["settings"]
    limit = "all" if used["limit"] is None else f"at most {used['limit']}"
    rows.append(f"split {used['split']}, seed {used['seed']}, {limit} samples a suite")
    rows.append(f"calls: {used['calls']}; defaults of the model: {used['model_defaults']}")
    return "\n".join(rows)
