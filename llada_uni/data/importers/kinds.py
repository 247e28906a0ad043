"""The kinds of datasets that can be read: name to reader. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping

_IMPORTERS = "llada_uni.data.importers"
KINDS: Mapping[str, tuple[str, str]] = {
    "folder": (f"{_IMPORTERS}.folder:read_folder", "class folders, and tar files of them"),
    "coco": (f"{_IMPORTERS}.coco:read_coco", "COCO captions"),
    "laion": (f"{_IMPORTERS}.laion:read_laion", "WebDataset tars with .jpg, .txt and .json"),
    "llava": (f"{_IMPORTERS}.llava:read_llava", "LLaVA or ShareGPT conversations, .json or .jsonl"),
    "hf": (f"{_IMPORTERS}.hugging_face:read_hugging_face", "Hugging Face datasets: parquet, a saved one, a name on the hub"),
    "csv": (f"{_IMPORTERS}.table:read_table", "a csv or tsv with paths to images"),
}
"""Kind to where its reader is and what it reads."""
