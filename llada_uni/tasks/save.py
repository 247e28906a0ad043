"""Writing a model directory in one step.

The networks in memory, and the files of those never loaded -> a temporary directory
beside the target, which then takes the target's name (files/folders.py).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from llada_uni.checkpoint.layout import Layout
from llada_uni.checkpoint.load import save_backbone
from llada_uni.decoder.decode import ImageDecoder
from llada_uni.decoder.model import save_transformer, save_vae
from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.files.model_dir import (
    BACKBONE,
    CODE_FEATURES,
    DECODERS,
    DRAFTS,
    IMAGE_TOKENIZER,
    KNOWN,
    PARTS,
    SETTINGS,
    TEXT,
    VAE,
    Part,
    backbone_folder,
    check_links,
)
from llada_uni.files.weights import WeightFiles, read_torch
from llada_uni.tasks.parts import Parts


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
    for part in PARTS:
        parts.need(part)
    source = parts.folder
    check_links(source)
    for name in (*TEXT.files(source), *SETTINGS.files(source)):
        shutil.copyfile(source / name, out / name)
    if "backbone" in parts.loaded:
        kept = dtype or _dtype_of(backbone_folder(source), BACKBONE)
        save_backbone(parts.backbone, out, layout=layout, dtype=kept)
    else:
        try:
            where: Path | None = backbone_folder(source)
        except UserError:
            where = None  # a directory without a backbone is a model directory too
        if where is not None:
            for file in BACKBONE.files(where):
                shutil.copyfile(where / file, out / file)
    for part in (IMAGE_TOKENIZER, CODE_FEATURES, *DECODERS.values(), VAE, DRAFTS):
        for file in part.files(source):
            (out / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / file, out / file)
    if "image_tokenizer" in parts.loaded:
        kept = dtype or _dtype_of(IMAGE_TOKENIZER.path(source), IMAGE_TOKENIZER)
        parts.image_tokenizer.save_pretrained(IMAGE_TOKENIZER.path(out), kept)
    if "decoder" in parts.loaded:
        _write_decoder(parts.decoder, source, out, dtype)


def _write_decoder(decoder: ImageDecoder, source: Path, out: Path, dtype: torch.dtype | None) -> None:
    """The networks of the decoder that are in memory; the files of the others were copied."""
    for variant, transformer in decoder._transformers.items():
        part = DECODERS[variant]
        save_transformer(transformer, part.path(out), dtype or _dtype_of(part.path(source), part))
    if decoder._vae is not None:
        save_vae(decoder._vae, VAE.path(out), dtype or _dtype_of(VAE.path(source), VAE))
    if decoder._sigvq is not None:
        was = read_torch(CODE_FEATURES.path(source) / CODE_FEATURES.marker)
        kept = dtype or next(iter(was.values())).dtype
        decoder._sigvq.save_pretrained(CODE_FEATURES.path(out) / CODE_FEATURES.marker, kept)


def _dtype_of(folder: Path, part: Part) -> torch.dtype | None:
    """The floating dtype that most tensors of the files in `folder` have; None when there are no files."""
    try:
        kinds = [kind for kind in WeightFiles(folder, part.weights).dtypes.values() if kind.is_floating_point]
    except UserError:
        return None
    return max(set(kinds), key=kinds.count) if kinds else None
