"""Training curves of runs, one after another along one axis of steps, as an SVG file for the model card.

    python -m scripts.curves runs/world/s0 runs/world/s1 runs/world/s2 --keys code_acc,text_acc --out docs/curves.svg

Reads `log.jsonl` of each run. A thin line is what was logged, a thick one its running mean. Steps of a run that was resumed
may stand in the log twice: the later row counts.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Sequence
from pathlib import Path

from llada_uni.files.weights import atomic_file

WIDTH, HEIGHT, EDGE = 760, 320, 56
COLOURS = ("#2060a0", "#c05020", "#208040", "#803090", "#806010")
WINDOW = 15  # rows of the running mean
MOST = 400  # points of a line

Curve = list[tuple[float, float]]


def read_rows(run: Path) -> list[dict[str, float]]:
    """The rows of a run's log by rising step."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["step"]: row for row in map(json.loads, lines) if "loss" in row}
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


def smooth(curve: Curve) -> Curve:
    """Running means over WINDOW rows."""
    values = [value for _, value in curve]
    means = [sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(WINDOW, i + 1) for i in range(len(values))]
    return [(step, mean) for (step, _), mean in zip(curve, means, strict=True)]


def draw(found: dict[str, Curve], begins: Sequence[tuple[float, str]]) -> str:
    """The SVG text. Keys whose values all lie in [0, 1] are shares; the axis ends at the largest value."""
    right = max((step for curve in found.values() for step, _ in curve), default=1.0)
    top = max((value for curve in found.values() for _, value in curve), default=1.0)
    top = 1.0 if top <= 1 else top

    def x(step: float) -> float:
        return EDGE + step / right * (WIDTH - 2 * EDGE)

    def y(value: float) -> float:
        return HEIGHT - EDGE - value / top * (HEIGHT - 2 * EDGE)

    def line(curve: Curve, style: str) -> str:
        thinned = curve[:: max(1, len(curve) // MOST)]
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in thinned)
        return f'<polyline points="{points}" fill="none" {style}/>'

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{EDGE} {EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}" fill="none" stroke="black"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">steps</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        step = share * right
        lines.append(f'<text x="{x(step):.0f}" y="{HEIGHT - EDGE + 16}" text-anchor="middle">{step:.0f}</text>')
        lines.append(f'<text x="{EDGE - 6}" y="{y(share * top) + 4:.0f}" text-anchor="end">{share * top:.2f}</text>')
    for step, name in begins:
        lines.append(f'<path d="M{x(step):.1f} {EDGE}V{HEIGHT - EDGE}" stroke="#999" stroke-dasharray="3 3"/>')
        lines.append(f'<text x="{x(step) + 4:.0f}" y="{EDGE - 6}" fill="#666">{html.escape(name)}</text>')
    for number, (key, curve) in enumerate(found.items()):
        colour = COLOURS[number % len(COLOURS)]
        lines.append(line(curve, f'stroke="{colour}" stroke-width="0.5" opacity="0.4"'))
        lines.append(line(smooth(curve), f'stroke="{colour}" stroke-width="2"'))
        lines.append(f'<text x="{EDGE + 130 * number}" y="20" fill="{colour}">{html.escape(key)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main(given: Sequence[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, in the order in which they were trained")
    parser.add_argument("--keys", default="code_acc,text_acc", help="columns of the log, with commas")
    parser.add_argument("--out", type=Path, required=True, help="the SVG file to write")
    options = parser.parse_args(given)
    missing = [str(run) for run in options.runs if not (run / "log.jsonl").is_file()]
    if missing:
        parser.error(f"no log.jsonl in {', '.join(missing)}")
    found, begins = curves(options.runs, options.keys.split(","))
    empty = [key for key, curve in found.items() if not curve]
    if empty:
        parser.error(f"no run has logged {', '.join(empty)}")
    with atomic_file(options.out) as path:
        path.write_text(draw(found, begins), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
