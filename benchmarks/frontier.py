"""Evaluations against score on the shipped model: rules that edit (t2t, t2m) beside rules that only fill, and block routing.

    python -m benchmarks.frontier --store FILE [--limit 100] [--suites geneval,wise,understand,edit] [--points NAME,NAME]
        [--plot docs/frontier.svg] [--json FILE] [--seed 51] [--model DIR] [--threads N]

Every point answers the same samples of the evaluation suites with its own settings, for codes and text alike. Score: the mean
of the suites' headline numbers; its interval joins the suites' own 95 % intervals. Evaluations: forwards a generation, which
do not depend on the machine. The first point, threshold 0.95 and 32 steps, is the one that others are compared with.
Every suite of every point is written to the store when it is done; what stands there is not measured again, so a run that was
stopped goes on, and runs of several points add up.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.block_routing import SHIPPED
from benchmarks.common import Row
from benchmarks.sprint_frontier import MeteredEngine, Point, defaults_of, plot
from llada_uni.evaluation.run import run_suites
from llada_uni.files.weights import write_json

SUITES = "geneval,wise,understand,edit"


def _t2t(preset: str, **more: Any) -> dict[str, Any]:
    return {"preset": preset, "steps": 32, **more}


def _t2m(threshold: float, bound: float, **more: Any) -> dict[str, Any]:
    return {"rule": "t2m", "threshold": threshold, "edit_threshold": bound, "steps": 32, **more}


POINTS = (
    Point("threshold 0.95", {"rule": "threshold", "threshold": 0.95, "steps": 32}),
    Point("directory"),
    Point("adaptive 0.7", {"rule": "adaptive", "threshold": 0.7, "steps": 32}),
    Point("adaptive 0.5", {"rule": "adaptive", "threshold": 0.5, "steps": 32}),
    Point("t2t conservative", _t2t("conservative")),
    Point("t2t quality", _t2t("quality")),
    Point("t2t speed", _t2t("speed")),
    Point("t2t quality, no rounds", _t2t("quality", edit_rounds=0)),
    Point("t2t speed, no rounds", _t2t("speed", edit_rounds=0)),
    Point("t2m 0.7 / 0.3, no rounds", _t2m(0.7, 0.3, edit_rounds=0)),
    Point("t2m 0.5 / 0.3", _t2m(0.5, 0.3)),
    Point("t2m 0.5 / 0.3, no rounds", _t2m(0.5, 0.3, edit_rounds=0)),
    *(Point(f"experts {most}", {"block_experts": most}) for most in SHIPPED),
)


class Store:
    """A JSON file of what was measured: {point: {suite: numbers}}, written after every suite."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.found = common.stored(path, about, {"points": {}})

    def get(self, point: Point, suite: str) -> dict[str, Any] | None:
        """What is known; None where nothing is, or the point had other settings then."""
        entry = self.found["points"].get(point.name, {})
        return entry.get(suite) if entry.get("settings") == point.settings else None

    def put(self, point: Point, suite: str, numbers: Mapping[str, Any]) -> None:
        entry = self.found["points"].get(point.name, {})
        if entry.get("settings") != point.settings:
            entry = {"settings": point.settings}
        self.found["points"][point.name] = {**entry, suite: dict(numbers)}
        write_json(self.path, self.found)


def measure(model: Any, point: Point, suite: str, limit: int, seed: int) -> dict[str, Any]:
    """One suite with a point's settings. `model` has its own settings and engine again afterwards."""
    parts = model.parts
    before = parts.defaults, parts.engine
    meter = MeteredEngine(parts.engine)
    parts.defaults, parts.engine = defaults_of(parts.defaults, point), meter
    try:
        found = run_suites(model, [suite], limit=limit, seed=seed)["suites"][suite]
    finally:
        parts.defaults, parts.engine = before
    return {
        "score": found["overall"], "interval": list(found["interval"]), "n": limit, "generations": meter.generations,
        "evaluations": meter.evaluations, "seconds": meter.seconds,
    }  # fmt: skip


def row(point: Point, found: Mapping[str, Mapping[str, Any]], base: Mapping[str, Mapping[str, Any]]) -> Row:
    """A point over all suites. ratio: how many times fewer evaluations than the base."""
    score, lost = _mean(found), _mean(base) - _mean(found)
    half = math.sqrt(sum(((low_high[1] - low_high[0]) / 2) ** 2 for low_high in _intervals(found))) / len(found)
    evaluations, of_base = _evaluations(found), _evaluations(base)
    scores = {suite: numbers["score"] for suite, numbers in found.items()}
    more = {
        "score": score,
        "low": max(0.0, score - half),
        "high": min(1.0, score + half),
        "loss": lost,
        "n": [v["n"] for v in found.values()],
    }
    settings = {f"setting {name}": value for name, value in point.settings.items()}
    return Row(
        point.name, POINTS[0].name, "evaluations", evaluations, of_base, of_base / evaluations, {**more, **scores, **settings}
    )


def _mean(found: Mapping[str, Mapping[str, Any]]) -> float:
    return statistics.fmean(numbers["score"] for numbers in found.values())


def _intervals(found: Mapping[str, Mapping[str, Any]]) -> list[list[float]]:
    return [numbers["interval"] for numbers in found.values()]


def _evaluations(found: Mapping[str, Mapping[str, Any]]) -> float:
    """A generation, of the suites with equal weight each."""
    return statistics.fmean(numbers["evaluations"] / numbers["generations"] for numbers in found.values())


def rows(
    store: Store, points: Sequence[Point], suites: Sequence[str], limit: int, seed: int, name: str = "world"
) -> Iterator[Row]:
    """Measures what the store lacks, suite by suite, and gives a row for every point."""
    model: Any = None
    base: dict[str, Any] = {}
    for point in points:
        found = {}
        for suite in suites:
            numbers = store.get(point, suite)
            if numbers is None:
                from llada_uni.model import UniModel

                model = model or UniModel.from_pretrained(name)
                numbers = measure(model, point, suite, limit, seed)
                store.put(point, suite, numbers)
            found[suite] = numbers
        base = base or found
        yield row(point, found, base)


def main(given: Sequence[str] | None = None) -> int:
    names = ", ".join(point.name for point in POINTS)
    parser = common.arguments(
        __doc__,
        store={"type": Path, "required": True, "help": "the file of what was measured; a run goes on from it"},
        limit={"type": int, "default": 100, "help": "samples a suite (default 100)"},
        seed={"type": int, "default": 51, "help": "of the samples (default 51)"},
        suites={"default": SUITES, "help": f"names with commas (default {SUITES})"},
        model={"default": "world", "help": "directory (default world: the shipped one)"},
        points={"help": f"names with ';' between them, of: {names}; the first is always there"},
        plot={"type": Path, "help": "also draw the points as an SVG file"},
    )
    options = common.start(parser, given)
    wanted = None if options.points is None else [name.strip() for name in options.points.split(";")]
    unknown = set(wanted or ()) - {point.name for point in POINTS}
    if unknown:
        parser.error(f"unknown point {sorted(unknown)[0]!r}; known: {names}")
    points = [point for i, point in enumerate(POINTS) if wanted is None or i == 0 or point.name in wanted]
    limit, suites = (2, ["understand"]) if options.quick else (options.limit, options.suites.split(","))
    drawn: list[Row] = []

    def measured() -> Iterator[Row]:
        about = {"limit": limit, "seed": options.seed, **({} if options.model == "world" else {"model": options.model})}
        store = Store(options.store, about)
        for one in rows(store, points, suites, limit, options.seed, options.model):
            drawn.append(one)
            yield one

    code = common.run(measured, options.json)
    if options.plot is not None and code == 0:
        shown = [{"case": one.case, "ratio": one.ratio, "more": one.more} for one in drawn]
        options.plot.write_text(plot(shown, f"times fewer evaluations than {shown[0]['case']}"), encoding="utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
