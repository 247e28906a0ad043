"""Evaluation reports as Markdown tables, for the model card: numbers are copied by a program, never by hand.

llada-uni eval --split heldout --json out/heldout.json
llada-uni eval --split seen --json out/seen.json
python -m llada_uni.evaluation.card out/heldout.json out/seen.json > docs/results.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llada_uni.evaluation.report import parts_of


def _score(part: dict[str, Any] | None, key: str = "overall") -> str:
    """`0.91 [0.87, 0.94]`, or a dash where a suite was not run."""
    if part is None or key not in part:
        return "-"
    low, high = part["interval"]
    return f"{part[key]:.3f} [{low:.3f}, {high:.3f}]"


def _head(first: str, names: Sequence[str]) -> str:
    return f"| {first} | " + " | ".join(names) + " |\n|---|" + "---|" * len(names)


def _keys(parts: Sequence[dict[str, Any]], field: str) -> list[str]:
    """The keys of a field of several reports, in order of appearance."""
    return list(dict.fromkeys(key for part in parts for key in part.get(field, {})))


def _section(name: str, suites: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Classes and means of one suite, or of one part of it, with a column a report."""
    lines = ["", f"### {name}", "", _head("class", names)]
    for key in _keys(suites, "classes"):
        lines.append(f"| {key} | " + " | ".join(_score(s.get("classes", {}).get(key), "score") for s in suites) + " |")
    for metric in _keys(suites, "metrics"):
        values = [s.get("metrics", {}).get(metric) for s in suites]
        lines.append(f"| *{metric}* (mean) | " + " | ".join("-" if v is None else f"{v:.3f}" for v in values) + " |")
    return lines


def tables(reports: Sequence[dict[str, Any]]) -> str:
    """One table of suites and their parts with a column a report, then a table of classes for each, and the settings."""
    names = [f"{r['settings']['split']} (seed {r['settings']['seed']})" for r in reports]
    rows, sections = [], []
    for suite in dict.fromkeys(s for r in reports for s in r["suites"]):
        found = [r["suites"].get(suite, {}) for r in reports]
        counts = list(dict.fromkeys(str(one["n"]) for one in found if "n" in one))
        rows.append(f"| {suite} (n {'/'.join(counts) or 0}) | " + " | ".join(_score(one) for one in found) + " |")
        parts = list(dict.fromkeys(part for one in found for part in parts_of(one)))
        for part in parts:
            here = [one.get(part, {}) for one in found]
            rows.append(f"| {suite}: {part} | " + " | ".join(_score(one) for one in here) + " |")
            sections += _section(f"{suite}: {part}", here, names)
        if not parts:
            sections += _section(suite, found, names)
    settings = json.dumps(reports[0]["settings"], indent=1)
    lines = ["## Suites, with 95 % intervals", "", _head("suite", names), *rows, *sections]
    return "\n".join([*lines, "", "## Settings", "", "```json", settings, "```"]) + "\n"


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    args = parser.parse_args()
    print(tables([json.loads(path.read_text()) for path in args.reports]), end="")


if __name__ == "__main__":
    main()
