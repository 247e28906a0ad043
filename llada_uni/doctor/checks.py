"""Whether a model directory is whole: files, sizes, headers, tokenizer, links; on request every value and every hash.

directory (or skeleton of one on the hub) -> a `Check` each, with what to do where it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llada_uni.checkpoint.info import ModelInfo
from llada_uni.decoder import model as decoder
from llada_uni.errors import UserError
from llada_uni.files.configs import read_json
from llada_uni.files.model_dir import (
    BACKBONE,
    CODE_FEATURES,
    DECODERS,
    IMAGE_TOKENIZER,
    INDEX,
    PARTS,
    TEXT,
    VAE,
    Part,
    backbone_folder,
    check_links,
)
from llada_uni.files.weights import WeightFiles, check_tensors, read_torch
from llada_uni.hub.record import Record
from llada_uni.hub.transfer import is_whole
from llada_uni.image import tokenizer

OnCheck = Callable[[str], None]


@dataclass(frozen=True)
class Check:
    """One question and its answer. ok: None where it does not apply here; detail: what was found, and what to do."""

    name: str
    ok: bool | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_checks(model: Path, info: ModelInfo, deep: bool, remote: bool, on_check: OnCheck) -> Iterator[Check]:
    """Every check of a directory. remote: it is a skeleton; its sizes are the hub's, and there are no values."""
    yield _files(model, info, remote)
    yield _answer("links", "no link leads out of the directory", lambda: check_links(model))
    yield _sizes(model, remote)
    for damaged in info.broken:
        yield Check(damaged.name, False, damaged.reason)
    broken = {damaged.name for damaged in info.broken}
    for part in (IMAGE_TOKENIZER, VAE, *DECODERS.values()):
        if part.there(model) and part.name not in broken:
            on_check(f"headers of {part.name}")
            yield _answer(part.name, "names and shapes are those of the config", partial(_headers, model, part))
    if BACKBONE.name not in (*broken, *info.missing):
        yield Check(BACKBONE.name, True, "names and shapes are those of the config")
    if TEXT.name not in broken:
        yield Check(TEXT.name, TEXT.there(model), "its ids fit the config" if TEXT.there(model) else f"no {TEXT.marker}")
    yield from (Check("note", None, note) for note in info.notes)
    if deep:
        yield from _deep(model, on_check)


def _answer(name: str, good: str, ask: Callable[[], Any]) -> Check:
    """A check that is a call: UserError is a no."""
    try:
        ask()
    except UserError as error:
        return Check(name, False, str(error))
    return Check(name, True, good)


def _files(model: Path, info: ModelInfo, remote: bool) -> Check:
    """Which parts are there; a half download; shards that no index names."""
    record = None if remote else Record.read(model)
    if record is not None and (missing := record.missing(model)):
        shown = f"{len(missing)} of {len(record.files)} files are missing or cut short ({missing[0]}, ...)"
        return Check("files", False, f"half a download of {record.id}: {shown}; run {record.command} {model}")
    known = {name for index in model.rglob(f"*.safetensors{INDEX}") for name in _listed(index)}
    for index in model.rglob(f"*.safetensors{INDEX}"):
        extra = sorted(file.name for file in index.parent.glob("*.safetensors") if file.name not in known)
        if extra:
            return Check("files", False, f"{index.parent} has {extra[0]}, which {index.name} does not name; delete one of them")
    missing = [name for name in info.missing if not (remote and name == CODE_FEATURES.name)]
    lacking = ", ".join(f"{name} ({_needed_for(name)})" for name in missing)
    return Check("files", None if missing else True, f"not there: {lacking}" if missing else "every part is there")


def _needed_for(name: str) -> str:
    return next(part.needed_for for part in PARTS if part.name == name)


def _listed(index: Path) -> set[str]:
    try:
        found = read_json(index).get("weight_map")
    except UserError:
        return set()
    return set(found.values()) if isinstance(found, dict) else set()


def _sizes(model: Path, remote: bool) -> Check:
    """Each file's size and revision, as far as somebody wrote down what they should be."""
    if remote:
        return Check("sizes", True, "every header fits the size that the hub names")
    record = Record.read(model)
    if record is not None:
        return Check("sizes", not record.missing(model), f"as on the hub: {record.id} at {record.commit[:12]}")
    commits = _commits(model)
    if len(set(commits.values())) > 1:
        newest = max(set(commits.values()), key=list(commits.values()).count)
        odd = sorted(name for name, commit in commits.items() if commit != newest)
        other = f"{odd[0]} is of revision {commits[odd[0]][:12]}, the others of {newest[:12]}"
        return Check("sizes", False, f"{other}; fetch it again")
    return Check("sizes", True if commits else None, f"all of one revision ({len(commits)} files)" if commits else "not known")


def _commits(model: Path) -> dict[str, str]:
    """File -> commit, as the hub's client notes it beside a directory that it filled."""
    notes = model / ".cache" / "huggingface" / "download"
    found = {}
    for path in notes.rglob("*.metadata") if notes.is_dir() else ():
        name = str(path.relative_to(notes)).removesuffix(".metadata")
        if name.endswith((".safetensors", ".json", ".pt")) and (model / name).is_file():
            found[name] = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    return found


def _headers(model: Path, part: Part) -> None:
    """UserError when the tensors of a part are not those that its config describes."""
    folder = part.path(model)
    if part in DECODERS.values():
        check_tensors(*decoder.open_transformer(folder), decoder.to_module_name)
        return
    config = read_json(folder / part.marker)
    module: torch.nn.Module
    rename: Callable[[str], str]
    with torch.device("meta"):
        if part is IMAGE_TOKENIZER:
            settings = tokenizer.Preprocessing.from_json(read_json(folder / "preprocessor_config.json"))
            module, rename = tokenizer.ImageTokenizer(config, settings), tokenizer.to_module_name
        else:
            module, rename = decoder.build_vae(config, str(folder / part.marker)), str
    check_tensors(module, WeightFiles(folder, part.weights), rename)


def _deep(model: Path, on_check: OnCheck) -> Iterator[Check]:
    """Every value is finite; every file has the hash that was written down when it was pulled."""
    record = Record.read(model)
    for name, file in (record.files if record is not None else {}).items():
        assert record is not None  # it named the file
        on_check(f"hash of {name}")
        if not is_whole(model / name, file):
            again = f"run {record.command} {model}, it is fetched again"
            yield Check("hashes", False, f"{name} is not the file of {record.id} at {record.commit[:12]}: {again}")
            return
    yield Check("hashes", None if record is None else True, "not known" if record is None else "every file is the hub's")
    for part in PARTS:
        if (part.weights and part.there(model)) or part is BACKBONE:
            yield _answer(f"{part.name}, values", "all are finite", partial(_finite, model, part, on_check))
    if CODE_FEATURES.there(model):
        state = read_torch(CODE_FEATURES.path(model) / CODE_FEATURES.marker)
        bad = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
        yield Check(f"{CODE_FEATURES.name}, values", not bad, f"not finite: {bad[0]}" if bad else "all are finite")


def _finite(model: Path, part: Part, on_check: OnCheck) -> None:
    folder = backbone_folder(model) if part is BACKBONE else part.path(model)
    weights = WeightFiles(folder, part.weights)
    for name in weights:
        on_check(f"{part.name}: {name}")
        tensor = weights.tensor(name)
        if tensor.is_floating_point() and not torch.isfinite(tensor.float() if tensor.itemsize == 1 else tensor).all():
            where = weights.file_of(name)
            raise UserError(f"{where}: the tensor {name} holds values that are not finite; fetch the file again")
        weights.release()


def to_line(check: Check) -> str:
    """A check for a person."""
    mark = {True: "ok  ", False: "FAIL", None: "-   "}[check.ok]
    return f"{mark}  {check.name:22}  {check.detail}"
