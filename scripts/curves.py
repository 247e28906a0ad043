"""Training curves of runs, one after another along one axis of steps, as an SVG file for the model card.

    python -m scripts.curves runs/world/s0 runs/world/s1 runs/world/s2 --keys code_acc,text_acc --out docs/curves.svg

Reads `log.jsonl` of each run, rows of evaluations too. A thin line is what was logged, a thick one its running mean. Steps of a
run that was resumed may stand in the log twice: the later row counts. A key may be followed by the name that is to stand in the
drawing: `eval/reward=held out`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from llada_uni.files.weights import atomic_file

WINDOW = 15  # rows of the running mean

Curve = list[tuple[float, float]]


def read_rows(run: Path) -> list[dict[str, float]]:
    """The rows of a run's log by rising step."""
    rows: dict[int, dict[str, float]] = {}
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["step"]] = {**rows.get(row["step"], {}), **row}  # an evaluation has a row of its own
    return [rows[step] for step in sorted(rows)]


def curves(runs: Sequence[Path], keys: Sequence[str]) -> tuple[dict[str, Curve], list[tuple[float, str]]]:
    """Points (step, value) of every key over all runs, and where each run begins with its name."""
    found: dict[str, Curve] = {key: [] for key in keys}
    begins, offset = [], 0.0
    for run in runs:
        begins.append((offset, run.name))
        rows = read_rows(run)
        for row in rows:
            for key in keys:
                if key in row:
                    found[key].append((offset + row["step"], row[key]))
        offset += rows[-1]["step"] if rows else 0
    return found, begins


def smooth(curve: Curve, window: int = WINDOW) -> Curve:
    """Running means over `window` rows."""
    values = [value for _, value in curve]
    means = [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]
    return [(step, mean) for (step, _), mean in zip(curve, means, strict=True)]


def draw(found: dict[str, Curve], begins: Sequence[tuple[float, str]], window: int = WINDOW) -> Figure:
    """The figure. Keys whose values all lie in [0, 1] are shares: the axis then goes from 0 to 1."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel="steps")
    for key, curve in found.items():
        (thin,) = axes.plot(*zip(*curve, strict=True), linewidth=0.5, alpha=0.4)
        axes.plot(*zip(*smooth(curve, window), strict=True), color=thin.get_color(), label=key)
    top = max(value for curve in found.values() for _, value in curve)
    axes.set(xlim=(0, None), ylim=(0, 1 if top <= 1 else None))
    for step, name in begins:
        axes.axvline(step, color="0.6", linestyle=":", linewidth=1)
        at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(name, (step, 1), xytext=(3, 3), fontsize=8, **at)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.2), ncols=len(found), frameon=False)
    return figure


def main(given: Sequence[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, in the order in which they were trained")
    parser.add_argument("--keys", default="code_acc,text_acc", help="columns of the log, with commas; KEY=NAME names one")
    parser.add_argument("--window", type=int, default=WINDOW, help=f"rows of the running mean (default {WINDOW})")
    parser.add_argument("--out", type=Path, required=True, help="the SVG file to write")
    options = parser.parse_args(given)
    missing = [str(run) for run in options.runs if not (run / "log.jsonl").is_file()]
    if missing:
        parser.error(f"no log.jsonl in {', '.join(missing)}")
    keys, names = zip(*(key.partition("=")[::2] for key in options.keys.split(",")), strict=True)
    found, begins = curves(options.runs, keys)
    empty = [key for key, curve in found.items() if not curve]
    if empty:
        parser.error(f"no run has logged {', '.join(empty)}")
    # The same numbers give the same bytes.
    with atomic_file(options.out) as path, mpl.rc_context({"svg.hashsalt": "llada-uni"}):
        named = {name or key: found[key] for key, name in zip(keys, names, strict=True)}
        draw(named, begins, options.window).savefig(path, format="svg", metadata={"Date": None})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
