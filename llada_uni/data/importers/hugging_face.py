"""Datasets of the Hugging Face library (extra `hf`): parquet and arrow files, a saved dataset, or a name on the hub.

Everything is streamed: a row is read when it is its turn. Where images are wanted again later, the library gives any row from
its files on disk. Images are taken as the bytes that are stored.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from llada_uni.data.importers.items import BadItem, Found, Item, ReadOptions, SourceImage, texts_of
from llada_uni.errors import UserError

_FORMATS = {".parquet": "parquet", ".arrow": "arrow"}
_CLASSES = ("label", "fine_label", "class")
_CAPTIONS = ("caption", "captions", "text", "sentence", "sentences")


def read_hugging_face(source: str, options: ReadOptions) -> Found:
    """Items of one split (`options.source_split`, else "train", else the only one there is), one a row.

    The image is the column of type Image (or `options.columns["image"]`). A ClassLabel column called label or class is the
    field `class` with its names; one called caption or text is `caption`; every other plain column is a field of its own name.
    """
    rows = _open(source, options)
    features = rows.features
    if features is None:
        rows = rows._resolve_features()
        features = rows.features
    image, names = _columns(source, features, options)
    datasets = _datasets()
    rows = rows.cast_column(image, datasets.Image(decode=False))
    labels = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    texts = rows.remove_columns(image) if options.again else rows
    for number, row in enumerate(texts):
        where = f"{source}[{number}]"
        try:
            fields = {ours: _texts(row[theirs], labels.get(theirs)) for ours, theirs in names.items()}
            found = SourceImage("", partial(_again, rows, number, image)) if options.again else _image(row[image])
            yield Item(f"{number:09d}", where, (found,), fields)
        except UserError as error:
            yield BadItem(where, str(error))


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("this needs the datasets library: pip install 'llada-uni[hf]'") from None
    return datasets


def _open(source: str, options: ReadOptions) -> Any:
    datasets, path, split = _datasets(), Path(source), options.source_split or None
    try:
        if path.is_dir() and ((path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()):
            found = datasets.load_from_disk(str(path))
            found = found if not isinstance(found, datasets.DatasetDict) else _chosen(found, split, source)
            return found if options.again else found.to_iterable_dataset()
        files = _files(path, split)
        if files:
            form = _FORMATS[files[0].suffix]
            names = [str(file) for file in files]
            return datasets.load_dataset(form, data_files=names, split="train", streaming=not options.again)
        if path.exists():
            raise UserError(f"there are no {' or '.join(_FORMATS)} files and no saved dataset at {source}")
        return _chosen(datasets.load_dataset(source, options.name or None, streaming=not options.again), split, source)
    except UserError:
        raise
    except Exception as error:  # the library raises what its many readers raise
        raise UserError(f"the datasets library cannot open {source} ({' '.join(str(error).split())[:200]})") from None


def _files(path: Path, split: str | None) -> list[Path]:
    """Data files of a path; of a folder those of the split, by the hub's naming (train-00000-of-00002.parquet)."""
    if path.is_file() and path.suffix in _FORMATS:
        return [path]
    if not path.is_dir():
        return []
    found = sorted(file for suffix in _FORMATS for file in path.rglob(f"*{suffix}"))
    return [file for file in found if split is None or file.name.startswith(split) or split in file.parent.parts]


def _chosen(found: Mapping[str, Any], split: str | None, source: str) -> Any:
    name = split or ("train" if "train" in found else next(iter(found)) if len(found) == 1 else None)
    if name is None or name not in found:
        raise UserError(f"{source} has no split {split!r}; allowed: {', '.join(found)} (--source-split)")
    return found[name]


def _columns(source: str, features: Mapping[str, Any], options: ReadOptions) -> tuple[str, dict[str, str]]:
    """The image's column, and our field -> column for all others."""
    datasets = _datasets()
    for theirs in options.columns.values():
        if theirs not in features:
            raise UserError(f"{source} has no column {theirs!r}; allowed: {', '.join(features)}")
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    image = options.columns.get("image") or (images[0] if images else None)
    if image is None:
        raise UserError(f"{source} has no column of images; name one with --column image=NAME; columns: {', '.join(features)}")
    names = {name: name for name in features if name not in (image, *images)}
    for ours, usual in (("class", _CLASSES), ("caption", _CAPTIONS)):
        found = next((name for name in usual if name in names), None)
        if found is not None:
            names.setdefault(ours, found)
    return image, names | {ours: theirs for ours, theirs in options.columns.items() if ours != "image"}


def _texts(value: Any, label: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping) or isinstance(value, bytes):
        return ()
    if label is not None and value is not None:
        value = [label.int2str(one).replace("_", " ") for one in (value if isinstance(value, list) else [value]) if one >= 0]
    return texts_of(value)


def _image(value: Any) -> SourceImage:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, None)
    suffix = Path(path).suffix.lower() if path else ""
    if isinstance(data, bytes) and data:
        return SourceImage(suffix or _suffix(data), partial(bytes, data))
    if path and Path(path).is_file():
        return SourceImage(suffix, Path(path).read_bytes)
    raise UserError("has no image")


def _again(rows: Any, number: int, image: str) -> bytes:
    """The image of a row of a dataset on disk."""
    return _image(rows[number][image]).read()


def _suffix(data: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return f".{(image.format or 'png').lower()}"
    except Exception:  # whatever it is, opening it later says so
        return ".png"
