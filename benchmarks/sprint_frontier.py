"""Speed against score on the shipped model: acceptance rules, thresholds, steps and SPRINT's pruning.

    python -m benchmarks.sprint_frontier [--quick] [--limit 50] [--suites geneval,wise,understand,edit] [--json FILE]
        [--plot docs/sprint.svg] [--threads N]
    python -m benchmarks.sprint_frontier --read FILE --plot docs/sprint.svg      # only draw what was measured before

Every point answers the same samples of the evaluation suites with its own settings, for codes and words alike. Score: the
mean of the suites' headline numbers. Speed: tokens a second of the backbone alone (no tokenizer, no decoder), over all
suites; evaluations: forwards a generation. The first point, 32 steps with threshold 0.95, is the one the others are
compared with, and is run again beside each; the second is what the model directory says.
"""

from __future__ import annotations

import html
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Row
from llada_uni.evaluation.run import run_suites
from llada_uni.generation.engine import Engine
from llada_uni.generation.settings import Generation
from llada_uni.tasks.defaults import Defaults, adjusted

WANTED_RATIO, WANTED_LOSS = 1.6, 0.01
PUBLISHED = {"r_text": 1.0, "r_img": 0.8}
TASKS = ("generate", "edit", "understand", "interleave")


@dataclass(frozen=True)
class Point:
    """Settings of unmasking, in the words of generation_config.json; what is not given is the directory's."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


def _sure(rule: str, threshold: float, steps: int = 32, **more: Any) -> dict[str, Any]:
    return {"rule": rule, "threshold": threshold, "steps": steps, **more}


POINTS = (
    Point("plain 32 steps 0.95", _sure("threshold", 0.95)),
    Point("directory"),
    Point("plain 8 steps 0.95", _sure("threshold", 0.95, 8)),
    Point("plain 4 steps 0.95", _sure("threshold", 0.95, 4)),
    Point("adaptive 0.95", _sure("adaptive", 0.95)),
    Point("adaptive 0.8", _sure("adaptive", 0.8)),
    Point("adaptive 0.6", _sure("adaptive", 0.6)),
    Point("adaptive 0.5", _sure("adaptive", 0.5)),
    Point("adaptive 0.4", _sure("adaptive", 0.4)),
    Point("SPRINT 0.95", _sure("adaptive", 0.95, sprint=PUBLISHED)),
    Point("SPRINT 0.93", _sure("adaptive", 0.93, sprint=PUBLISHED)),
    Point("SPRINT 0.6", _sure("adaptive", 0.6, sprint=PUBLISHED)),
    Point("SPRINT 0.6 r 0.5", _sure("adaptive", 0.6, sprint={"r": 0.5})),
    Point("margin 0.4", _sure("adaptive", 0.4, confidence="margin")),
    Point("entropy 0.5", _sure("entropy", 0.5, confidence="entropy")),
    Point("entropy 1", _sure("entropy", 1.0, confidence="entropy")),
    Point("factor 1", _sure("factor", 1.0)),
)


class MeteredEngine(Engine):
    """An engine that counts what it generates and how long that takes: seconds of its thread's work, because the points
    are far apart in time and other processes come and go.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.model)
        self.generations = self.tokens = self.evaluations = 0
        self.seconds = 0.0

    def generate(self, *given: Any, **named: Any) -> Generation:
        begin = time.thread_time()
        result = super().generate(*given, **named)
        self.seconds += time.thread_time() - begin
        self.generations += 1
        self.tokens += len(result.tokens)
        self.evaluations += result.evaluations
        return result


def defaults_of(defaults: Defaults, point: Point) -> Defaults:
    """The directory's settings with those of the point for every grid of codes and all words."""
    changes = {}
    for name in TASKS:
        task = getattr(defaults, name)
        kinds = [kind for kind in ("codes", "text") if hasattr(task, kind)]
        changes[name] = task.replace(**{kind: adjusted(getattr(task, kind), **point.settings) for kind in kinds})
    return defaults.replace(**changes)


@dataclass(frozen=True)
class Measured:
    """What a point came to."""

    point: Point
    scores: dict[str, float]
    speed: float  # tokens a second
    evaluations: float  # a generation

    @property
    def score(self) -> float:
        return statistics.fmean(self.scores.values())


def measure(model: Any, point: Point, suites: Sequence[str], limit: int) -> Measured:
    """Answer the suites with the point's settings. `model` has its own settings and engine again afterwards."""
    parts = model.parts
    before = parts.defaults, parts.engine
    meter = MeteredEngine(parts.engine)
    parts.defaults, parts.engine = defaults_of(parts.defaults, point), meter
    try:
        report = run_suites(model, suites, limit=limit)
    finally:
        parts.defaults, parts.engine = before
    scores = {suite: found["overall"] for suite, found in report["suites"].items()}
    return Measured(point, scores, meter.tokens / meter.seconds, meter.evaluations / meter.generations)


def row(measured: Measured, base: Measured) -> Row:
    more = {"score": measured.score, "loss": base.score - measured.score, "evaluations": measured.evaluations}
    ratio = measured.speed / base.speed
    settings = {f"setting {name}": value for name, value in measured.point.settings.items()}
    return Row(
        measured.point.name, base.point.name, "tokens/s", measured.speed, base.speed, ratio,
        {**more, **measured.scores, **settings},
    )  # fmt: skip


def plot(rows: Sequence[Mapping[str, Any]], axis: str | None = None) -> str:
    """An SVG of the rows of the report: ratio to the right (axis: of what), score upwards; a numbered dot each, named beside,
    with its interval where the row has one ("low", "high").

    Dots of at least WANTED_RATIO times the speed of the first at a loss of at most WANTED_LOSS are green.
    """
    width, height, edge, legend = 640, 470, 60, 240
    speeds, scores = [row["ratio"] for row in rows], [row["more"]["score"] for row in rows]
    scores += [row["more"][end] for row in rows for end in ("low", "high") if end in row["more"]]
    right, low, high = max(speeds) * 1.1, min(scores) - 0.02, max(scores) + 0.02
    axis = axis or f"times the speed of {rows[0]['case']}"

    def x(speed: float) -> float:
        return edge + speed / right * (width - 2 * edge)

    def y(score: float) -> float:
        return height - edge - (score - low) / (high - low) * (height - 2 * edge)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + legend}" height="{height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width + legend}" height="{height}" fill="white"/>',
        f'<path d="M{edge} {edge}V{height - edge}H{width - edge}" fill="none" stroke="black"/>',
        f'<text x="{width / 2}" y="{height - 15}" text-anchor="middle">{html.escape(axis)}</text>',
        f'<text x="{edge}" y="{edge - 15}">score (mean of the suites)</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        speed, score = share * right, low + share * (high - low)
        lines.append(f'<text x="{x(speed):.0f}" y="{height - edge + 16}" text-anchor="middle">{speed:.2f}</text>')
        lines.append(f'<text x="{edge - 6}" y="{y(score) + 4:.0f}" text-anchor="end">{score:.3f}</text>')
    for number, row in enumerate(rows, 1):
        good = row["ratio"] >= WANTED_RATIO and row["more"]["loss"] <= WANTED_LOSS
        color = "#208040" if good else "#2060a0"
        at, up = x(row["ratio"]), y(row["more"]["score"])
        name = html.escape(f"{number}  {row['case']}: {row['ratio']:.2f}x, {-row['more']['loss']:+.3f}")
        if "low" in row["more"]:
            ends = (y(row["more"]["low"]), y(row["more"]["high"]))
            lines.append(f'<path d="M{at:.1f} {ends[0]:.1f}V{ends[1]:.1f}" stroke="{color}" stroke-opacity="0.4"/>')
        lines.append(f'<circle cx="{at:.1f}" cy="{up:.1f}" r="4" fill="{color}"/>')
        lines.append(f'<text x="{at + 6:.1f}" y="{up - 5:.1f}">{number}</text>')
        lines.append(f'<text x="{width - edge / 2}" y="{edge + 18 * number - 18}" fill="{color}">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


def measured_rows(suites: Sequence[str], limit: int, points: Sequence[Point]) -> Iterator[Row]:
    from llada_uni.model import UniModel

    model = UniModel.from_pretrained("world")
    measure(model, points[0], suites[:1], 1)  # load everything
    base = measure(model, points[0], suites, limit)
    yield row(base, base)
    for point in points[1:]:  # the first one again beside each: a machine is not as fast a quarter of an hour later
        yield row(measure(model, point, suites, limit), measure(model, points[0], suites, limit))


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(
        __doc__,
        limit={"type": int, "default": 50, "help": "samples a suite (default 50)"},
        suites={"default": "geneval,wise,understand,edit", "help": "names with commas"},
        plot={"type": Path, "help": "also draw the points as an SVG file"},
        read={"type": Path, "help": "measure nothing: draw what an earlier run wrote with --json"},
    )
    options = common.start(parser, given)
    rows_file = options.read or options.json
    if options.plot is not None and rows_file is None:
        parser.error("--plot needs --json FILE, or --read FILE")
    if options.read is None:
        points, limit = (POINTS[:3:2], 2) if options.quick else (POINTS, options.limit)
        code = common.run(lambda: measured_rows(options.suites.split(","), limit, points), options.json)
        if code:
            return code
    if options.plot is not None:
        options.plot.write_text(plot(json.loads(rows_file.read_text())["rows"]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
