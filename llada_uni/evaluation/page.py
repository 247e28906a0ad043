"""Writes the page of an evaluation: its table, and for each suite some answers that are right and some that are wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.evaluation.report import format_table
from llada_uni.evaluation.suite import Judged
from llada_uni.files.weights import atomic_file

SHOWN = 24  # answers right, and as many wrong, a suite


def data_url(image: Image.Image) -> str:
    """An image as a PNG inside an address, so that a page is one file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_page(report: dict[str, Any], judged: Sequence[Judged], folder: Path) -> Path:
    """Writes index.html (images inside the file, all texts escaped) into `folder` and returns its path."""
    environment = Environment(loader=PackageLoader("llada_uni.evaluation", "."), autoescape=True)
    environment.filters["data_url"] = data_url
    groups = []
    for suite in report["suites"]:
        mine = [one for one in judged if one.suite == suite]
        for title, chosen in (("right", [o for o in mine if o.score == 1.0]), ("wrong", [o for o in mine if o.score < 1.0])):
            groups.append({"suite": suite, "title": title, "chosen": chosen, "of": len(mine)})
    page = environment.get_template("page.html.jinja").render(table=format_table(report), groups=groups, shown=SHOWN)
    path = folder / "index.html"
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from error
    return path
