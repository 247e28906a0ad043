"""Writing a model directory in one step.

What flows through: the networks in memory, and the files of those never loaded -> a temporary directory
beside the target, which then takes the target's name (files/folders.py).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from llada_uni.checkpoint.layout import Layout
from llada_uni.checkpoint.load import backbone_folder, save_backbone
from llada_uni.decoder.decode import FOLDERS, ImageDecoder
from llada_uni.decoder.model import VAE_WEIGHTS, save_transformer, save_vae
from llada_uni.decoder.sigvq import FILE
from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.files.weights import WeightFiles, read_torch
from llada_uni.tasks.parts import KNOWN, Parts

PLAIN_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def save_model(
    parts: Parts,
    folder: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    layout: Layout = "released",
) -> Path:
    """Writes every part; `dtype` None keeps the one of the files the parts were read from.

    UserError when `folder` exists and is neither empty nor a model directory: nothing else is overwritten.
    """
    with new_folder(folder, replaces=KNOWN) as temporary:
        _write_parts(parts, temporary, dtype, layout)
    return Path(folder).expanduser()


def _write_parts(parts: Parts, out: Path, dtype: torch.dtype | None, layout: Layout) -> None:
    source = parts.folder
    _check_links(source)
    for name in PLAIN_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    if "backbone" in parts.loaded:
        kept = dtype or _dtype_of(backbone_folder(source))
        save_backbone(parts.backbone, out, layout=layout, dtype=kept)
    else:
        try:
            where = backbone_folder(source)
        except UserError:
            where = None  # a directory without a backbone is a model directory too
        for file in [] if where is None else [where / "config.json", *where.glob("model*.safetensors*")]:
            shutil.copyfile(file, out / file.name)
    for name in ("image_tokenizer", *FOLDERS.values(), "vae"):
        if (source / name).is_dir():
            shutil.copytree(source / name, out / name)
    if "image_tokenizer" in parts.loaded:
        kept = dtype or _dtype_of(source / "image_tokenizer")
        parts.image_tokenizer.save_pretrained(out / "image_tokenizer", kept)
    if "decoder" in parts.loaded:
        _write_decoder(parts.decoder, source, out, dtype)


def _check_links(folder: Path) -> None:
    """UserError for a link that leads out of the directory: its copy would hold a file from elsewhere on this machine.

    The download cache of the hub keeps its files beside its snapshots; links into the same repository are its own.
    """
    home = folder.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError(f"{path} is a link that leads out of the model directory; put the file itself there")


def _write_decoder(decoder: ImageDecoder, source: Path, out: Path, dtype: torch.dtype | None) -> None:
    """The networks of the decoder that are in memory; the files of the others were copied."""
    for variant, transformer in decoder._transformers.items():
        kept = dtype or _dtype_of(source / FOLDERS[variant])
        save_transformer(transformer, out / FOLDERS[variant], kept)
    if decoder._vae is not None:
        save_vae(decoder._vae, out / "vae", dtype or _dtype_of(source / "vae", VAE_WEIGHTS))
    if decoder._sigvq is not None:
        was = read_torch(source / "image_tokenizer" / FILE)
        kept = dtype or next(iter(was.values())).dtype
        decoder._sigvq.save_pretrained(out / "image_tokenizer" / FILE, kept)


def _dtype_of(folder: Path, name: str = "model.safetensors") -> torch.dtype | None:
    """The floating dtype that most tensors of the files in `folder` have; None when there are no files."""
    try:
        kinds = [kind for kind in WeightFiles(folder, name).dtypes.values() if kind.is_floating_point]
    except UserError:
        return None
    return max(set(kinds), key=kinds.count) if kinds else None
