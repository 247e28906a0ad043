"""Tables: a csv or tsv with a path to an image in each row, and texts in the other columns."""

from __future__ import annotations

import csv
from pathlib import Path

from llada_uni.data.importers.items import BadItem, Found, Item, ReadOptions, file_image, texts_of
from llada_uni.errors import UserError

_IMAGE = ("image", "path", "file", "filename", "file_name", "filepath", "image_path")
_DELIMITERS = {".tsv": "\t", ".tab": "\t"}


def read_table(source: Path, options: ReadOptions) -> Found:
    """Items of a csv with a header line (UTF-8, a byte order mark is allowed), one a row.

    The column with the paths is `options.columns["image"]`, else one that is called image, path, file or the like; paths are
    relative to `options.images`, else to the csv's folder. Every other column is a field of its own name.
    """
    folder = Path(options.images) if options.images else source.parent
    delimiter = options.delimiter or _DELIMITERS.get(source.suffix.lower(), ",")
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            columns = _columns(source, list(rows.fieldnames or ()), options)
            for row in rows:
                where = f"{source}:{rows.line_num}"
                try:
                    if None in row or None in row.values():
                        raise UserError(f"has another number of columns than the {len(rows.fieldnames or ())} of the header")
                    fields = {ours: texts_of(row[theirs]) for ours, theirs in columns.items() if ours != "image"}
                    yield Item(
                        f"{source.stem}/{rows.line_num:08d}", where, (file_image(folder, row[columns["image"]]),), fields
                    )
                except UserError as error:
                    yield BadItem(where, str(error))
    except csv.Error as error:
        raise UserError(f"{source}: the row after line {rows.line_num} is not csv ({error})") from None
    except UnicodeDecodeError:
        raise UserError(f"{source} is not UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {source} ({error.strerror or error})") from None


def _columns(source: Path, header: list[str], options: ReadOptions) -> dict[str, str]:
    """Our field -> the table's column, "image" among them."""
    if not header:
        raise UserError(f"{source} is empty; the first line names the columns")
    columns = {name: name for name in header if name} | dict(options.columns)
    for theirs in options.columns.values():
        if theirs not in header:
            raise UserError(f"{source}: there is no column {theirs!r}; allowed: {', '.join(header)}")
    if "image" not in columns:
        found = next((name for name in header if name.lower() in _IMAGE), None)
        if found is None:
            raise UserError(f"{source}: which column has the paths? Say --column image=NAME; columns: {', '.join(header)}")
        columns["image"] = found
    return columns
