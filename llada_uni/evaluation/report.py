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
    from llada_uni.evaluation.suites import Record

HEADLINES = {
    "t2i": "asked objects right",
    "understand": "answers right",
    "edit": "edits right, everything else kept",
    "inpaint": "refilled right, everything else kept",
    "stories": "asked characters in every picture",
    "think": "asked objects right, reasoned out",
    "dialogue": "last answers right",
    "decoder": "objects read back",
    "robust": "held-out wordings: objects or answers right",
}
"""What the overall number of a suite means."""
_SHOWN = 24  # pictures right, and as many wrong, a suite on the page


def _share(scores: list[float]) -> dict:
    low, high = wilson(sum(scores), len(scores))
    return {"score": sum(scores) / len(scores), "n": len(scores), "interval": [low, high]}


def build_report(records: list[Record], suites: list[str], failed: dict[str, str], settings: dict) -> dict:
    """The report described at `run_suites`. The decoder's overall number is that of the turbo decoder."""
    report: dict = {"suites": {}, "settings": settings}
    for suite in suites:
        if suite in failed:
            report["suites"][suite] = {"meaning": HEADLINES[suite], "failed": failed[suite]}
            continue
        mine = [r for r in records if r.suite == suite]
        keys = sorted({r.key for r in mine})
        classes = {key: _share([r.score for r in mine if r.key == key]) for key in keys}
        head = classes["turbo"] if suite == "decoder" else _share([r.score for r in mine])
        names = sorted({name for r in mine for name in r.scores})
        metrics = {}
        for name in names:
            values = [r.scores[name] for r in mine if name in r.scores]
            metrics[name] = sum(values) / len(values)
        report["suites"][suite] = {
            "meaning": HEADLINES[suite],
            "overall": head["score"],
            "interval": head["interval"],
            "n": head["n"],
            "classes": classes,
            "metrics": metrics,
            "errors": sum(r.error for r in mine),
            "seconds": sum(r.seconds for r in mine),
        }
    return report


def format_table(report: dict) -> str:
    """The report as plain text, one row a suite and one a class, and the settings it was made with."""
    rows = []
    for name, suite in report["suites"].items():
        if "failed" in suite:
            rows.append(f"{name:12} FAILED: {suite['failed']}")
            continue
        low, high = suite["interval"]
        rows.append(
            f"{name:12} {suite['overall']:6.3f}  [{low:.3f}, {high:.3f}]  n={suite['n']}  {suite['meaning']}"
        )
        for key, c in suite["classes"].items():
            rows.append(
                f"  {key:16} {c['score']:6.3f}  [{c['interval'][0]:.3f}, {c['interval'][1]:.3f}]  n={c['n']}"
            )
        rows.append("  " + ", ".join(f"{k} {v:.3f}" for k, v in suite["metrics"].items()))
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
        f'<figure><img src="{_data(p)}" alt=""><figcaption>{html.escape(c)}</figcaption></figure>'
        for c, p in record.pictures
    )
    title = f"<b>{html.escape(record.prompt)}</b> <i>{html.escape(record.key)}</i> {record.score:.2f}"
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
            body.append(
                f"<h2>{suite}: {title} ({len(chosen)} of {len(mine)}, {min(len(chosen), _SHOWN)} shown)</h2>"
            )
            body.append("<section>" + "".join(_card(r) for r in chosen[:_SHOWN]) + "</section>")
    style = (
        "body{font:15px system-ui;margin:2em}section{display:flex;flex-wrap:wrap;gap:1em}"
        "article{border:1px solid #ccc;border-radius:8px;padding:.6em;max-width:34em}"
        "figure{display:inline-block;margin:.2em;width:128px;vertical-align:top}img{width:128px}"
        "figcaption{font-size:12px}pre{background:#f5f5f5;padding:1em;overflow:auto}"
    )
    page = f'<!doctype html><meta charset="utf-8"><title>Evaluation</title><style>{style}</style>' + "".join(
        body
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path
