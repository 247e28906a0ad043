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


def _score(part: dict[str, Any] | None, key: str = "overall") -> str:
    """`0.91 [0.87, 0.94]`, or a dash where a suite was not run."""
    if part is None or key not in part:
        return "-"
    low, high = part["interval"]
    return f"{part[key]:.3f} [{low:.3f}, {high:.3f}]"


def tables(reports: Sequence[dict[str, Any]]) -> str:
    """One table of suites with a column a report, then a table of classes a suite, and the settings."""
    names = [f"{r['settings']['split']} (seed {r['settings']['seed']})" for r in reports]
    head = "| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names)
    suites: list[str] = []
    for report in reports:
        suites += [s for s in report["suites"] if s not in suites]
    lines = ["## Suites, with 95 % intervals", "", head.replace("| |", "| suite |", 1)]
    for suite in suites:
        cells = [_score(r["suites"].get(suite)) for r in reports]
        counts = {str(r["suites"][suite].get("n", 0)) for r in reports if suite in r["suites"]}
        lines.append(f"| {suite} (n {'/'.join(sorted(counts))}) | " + " | ".join(cells) + " |")
    for suite in suites:
        parts = [r["suites"].get(suite, {}) for r in reports]
        lines += ["", f"### {suite}", ""]
        meaning = next((p["meaning"] for p in parts if p.get("meaning")), "")
        if meaning:
            lines += [meaning if isinstance(meaning, str) else json.dumps(meaning), ""]
        lines.append(head.replace("| |", "| class |", 1))
        keys: list[str] = []
        for part in parts:
            keys += [k for k in part.get("classes", {}) if k not in keys]
        for key in keys:
            cells = [_score(p.get("classes", {}).get(key), "score") for p in parts]
            lines.append(f"| {key} | " + " | ".join(cells) + " |")
        metrics: list[str] = []
        for part in parts:
            metrics += [m for m in part.get("metrics", {}) if m not in metrics]
        for metric in metrics:
            cells = [f"{p['metrics'][metric]:.3f}" if metric in p.get("metrics", {}) else "-" for p in parts]
            lines.append(f"| *{metric}* (mean) | " + " | ".join(cells) + " |")
    lines += ["", "## Settings", "", "```json", json.dumps(reports[0]["settings"], indent=1), "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    args = parser.parse_args()
    print(tables([json.loads(path.read_text()) for path in args.reports]), end="")


if __name__ == "__main__":
    main()
