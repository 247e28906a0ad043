"""Records to numbers with intervals, to a table, and to a page that shows pictures right and wrong."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from llada_uni.world.intervals import wilson

if TYPE_CHECKING:
    from llada_uni.world.evaluation.asking import Record

HEADLINES = {
    "geneval": "drawn as asked and nothing else; mean of the six classes",
    "understand": "answers right; mean of the kinds",
    "wise": "drawn as reasoned out, with thinking",
    "text": "numbers drawn as asked",
    "edit": "edits right, everything else kept; mean of the kinds",
    "intergen": "mean of stories (frames right) and reasoning (final answers right)",
    "dialogue": "answers right, of whole dialogues",
    "robust": "right in other words",
    "decoder": "objects read back, turbo at 8 steps",
}
"""What the overall number of a suite means."""
HEADS = {"wise": "with", "robust": "reworded", "decoder": "turbo8"}
"""The part of a suite that its overall number is taken from; elsewhere it is the mean of the parts."""
_SHOWN = 24  # pictures right, and as many wrong, a suite on the page


def _share(total: float, n: int) -> dict:
    low, high = wilson(total, n)
    return {"n": n, "interval": [low, high]}


def summary(records: list[Record]) -> dict:
    """One suite, or one part of it: overall (mean of its classes), interval, n, classes, metrics, errors, seconds."""
    classes = {}
    for key in sorted({r.key for r in records}):
        scores = [r.score for r in records if r.key == key]
        classes[key] = {"score": sum(scores) / len(scores), **_share(sum(scores), len(scores))}
    overall = sum(c["score"] for c in classes.values()) / len(classes)
    metrics = {}
    for name in sorted({name for r in records for name in r.scores} - {"right"}):
        values = [r.scores[name] for r in records if name in r.scores]
        metrics[name] = sum(values) / len(values)
    return {
        "overall": overall,
        **_share(overall * len(records), len(records)),
        "classes": classes,
        "metrics": metrics,
        "errors": sum(r.error for r in records),
        "seconds": sum(r.seconds for r in records),
    }


def _suite(records: list[Record], name: str) -> dict:
    """A suite, with its parts where it has some."""
    names = list(dict.fromkeys(r.part for r in records))
    if names == [""]:
        return summary(records)
    parts = {part: summary([r for r in records if r.part == part]) for part in names}
    if name in HEADS:
        return {**parts[HEADS[name]], **parts}
    whole = summary(records)
    overall = sum(part["overall"] for part in parts.values()) / len(parts)
    return {**whole, "overall": overall, **_share(overall * whole["n"], whole["n"]), **parts}


def parts_of(suite: dict) -> dict[str, dict]:
    """The parts of a suite in a report, by name."""
    return {name: part for name, part in suite.items() if isinstance(part, dict) and "overall" in part}


def build_report(records: list[Record], suites: list[str], failed: dict[str, str], settings: dict) -> dict:
    """The report described at `run_suites`."""
    report: dict = {"suites": {}, "settings": settings}
    for name in suites:
        found = {"failed": failed[name]} if name in failed else _suite([r for r in records if r.suite == name], name)
        report["suites"][name] = {"meaning": HEADLINES[name], **found}
    return report


def _row(name: str, indent: int, one: dict, score: float, meaning: str = "") -> str:
    low, high = one["interval"]
    return f"{' ' * indent}{name:{24 - indent}} {score:6.3f}  [{low:.3f}, {high:.3f}]  n={one['n']}  {meaning}".rstrip()


def _rows(one: dict, indent: int) -> list[str]:
    """Classes and metrics of a suite or a part."""
    rows = [_row(key, indent, c, c["score"]) for key, c in one["classes"].items()]
    return [*rows, " " * indent + ", ".join(f"{k} {v:.3f}" for k, v in one["metrics"].items())]


def format_table(report: dict) -> str:
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
    rows.append(f"split {used['split']}, seed {used['seed']}, {used['limit']} samples a suite")
    rows.append(f"calls: {used['calls']}; defaults of the model: {used['model_defaults']}")
    return "\n".join(rows)


def _data(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _card(record: Record) -> str:
    figures = "".join(
        f'<figure><img src="{_data(p)}" alt=""><figcaption>{html.escape(c)}</figcaption></figure>' for c, p in record.pictures
    )
    where = html.escape(f"{record.part} {record.key}".strip())
    title = f"<b>{html.escape(record.prompt)}</b> <i>{where}</i> {record.score:.2f}"
    return (
        f"<article><p>{title}</p>{figures}"
        f"<p>wanted: {html.escape(record.wanted)}<br>got: {html.escape(record.got)}</p></article>"
    )


def write_html(report: dict, records: list[Record], folder: Path) -> Path:
    """Writes index.html (pictures inside the file) into `folder` and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    body = [f"<h1>Evaluation</h1><pre>{html.escape(format_table(report))}</pre>"]
    for suite in report["suites"]:
        mine = [r for r in records if r.suite == suite]
        for title, chosen in (
            ("right", [r for r in mine if r.score == 1.0]),
            ("wrong", [r for r in mine if r.score < 1.0]),
        ):
            body.append(f"<h2>{suite}: {title} ({len(chosen)} of {len(mine)}, {min(len(chosen), _SHOWN)} shown)</h2>")
            body.append("<section>" + "".join(_card(r) for r in chosen[:_SHOWN]) + "</section>")
    style = (
        "body{font:15px system-ui;margin:2em}section{display:flex;flex-wrap:wrap;gap:1em}"
        "article{border:1px solid #ccc;border-radius:8px;padding:.6em;max-width:34em}"
        "figure{display:inline-block;margin:.2em;width:128px;vertical-align:top}img{width:128px}"
        "figcaption{font-size:12px}pre{background:#f5f5f5;padding:1em;overflow:auto}"
    )
    page = f'<!doctype html><meta charset="utf-8"><title>Evaluation</title><style>{style}</style>' + "".join(body)
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path
