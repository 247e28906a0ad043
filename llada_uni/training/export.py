"""Parts that were trained one by one, put together as one model directory in the released layout.

Runs (their `model/` folders) and model directories, later ones over earlier ones -> for each part the files
of the last source that has it -> one new directory, which appears complete or not at all.
The backbone goes tensor by tensor and the other parts file by file, so memory is that of the largest weight file.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from llada_uni.checkpoint.layout import Layout
from llada_uni.checkpoint.load import check_layout, convert_backbone, load_backbone, save_backbone
from llada_uni.checkpoint.mean import Mean, Way
from llada_uni.checkpoint.source import Source
from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.files.model_dir import BACKBONE, KNOWN, PARTS, SETTINGS, TEXT, Part, check_links
from llada_uni.files.shipped import named_model
from llada_uni.files.weights import WeightFiles, read_torch, write_torch, write_weights
from llada_uni.tasks.parts import Parts
from llada_uni.training.language.adapter_merge import merge_quantized
from llada_uni.training.language.lora import load_adapter, merge_lora
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.recipes.recipe import FILE as RECIPE
from llada_uni.training.recipes.recipe import read_recipe


@dataclass(frozen=True)
class Exported:
    """The directory written, and which sources each part came from; `missing`: parts that no source has."""

    folder: Path
    sources: dict[str, tuple[Path, ...]]

    @property
    def missing(self) -> tuple[Part, ...]:
        return tuple(part for part in PARTS if part.name not in self.sources and not part.optional)


def export_model(
    out: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    dtype: torch.dtype | None = None,
    layout: Layout = "released",
    adapter: str | os.PathLike[str] | None = None,
    average: Sequence[str | os.PathLike[str]] = (),
    fraction: float = 1.0,
    keep: Sequence[str] = (),
) -> Exported:
    """Writes the model directory `out` from runs and model directories; later sources override earlier ones.

    dtype: of all weights (the router stays in float32); None keeps that of the files. adapter: a LoRA adapter that is added to
    the backbone's weights. average: runs or model directories whose backbones' mean is the backbone, over those of `sources`.
    fraction, keep: how far to go to that mean from the backbone of `sources`, and names of weights that stay there (`Way`).
    A model at `out` is replaced. UserError for a source without any part, parts that do not fit together, and an `out` that
    holds something else.
    """
    check_layout(layout)
    if adapter is not None and average:
        raise UserError("average and adapter do not go together: export the mean first, then add the adapter to it")
    partly = fraction != 1 or bool(keep)
    if partly and not average:
        raise UserError("fraction and keep say how far to go to a mean, and there is no average")
    folders = [model_folder(source) for source in sources]
    averaged = [model_folder(source) for source in average]
    for folder in (*folders, *averaged):
        check_links(folder)
    for folder in averaged:
        if not BACKBONE.files(folder):
            raise UserError(f"{folder} has no backbone to be averaged")
    chosen = {part: folder for folder in folders for part in PARTS if part.files(folder)}
    if partly and BACKBONE not in chosen:
        raise UserError("fraction and keep begin at the backbone of the sources, and none of them has one")
    way = Way(chosen[BACKBONE], fraction, keep) if partly else None
    if averaged:
        chosen[BACKBONE] = averaged[0]
    if adapter is not None and BACKBONE not in chosen:
        raise UserError(f"the adapter {adapter} needs a backbone, and no source has one")
    with new_folder(out, replaces=KNOWN) as temporary:
        for part, folder in chosen.items():
            if part is BACKBONE and adapter is not None:
                _write_adapted(folder, temporary, dtype, layout, adapter)
            elif part is BACKBONE:
                stored = Mean(averaged, way) if averaged else Source(folder)
                convert_backbone(stored, temporary, layout, dtype)
            else:
                for file in part.files(folder):
                    _write_file(folder / file, temporary / file, dtype)
        _check_fit(temporary, chosen)
    taken = {part.name: (folder,) for part, folder in chosen.items()}
    return Exported(Path(out), taken | ({BACKBONE.name: tuple(averaged)} if averaged else {}))


def model_folder(source: str | os.PathLike[str]) -> Path:
    """Where the parts of a source lie: RUN/model, or the directory itself. UserError when there is no part."""
    source = named_model(source)
    for folder in (source / "model", source):
        if any(part.files(folder) for part in PARTS):
            return folder
    if (source / "checkpoints").is_dir():
        raise UserError(f"{source} has no model yet: let it finish, or export one of its checkpoints (--checkpoint)")
    raise UserError(f"{source} holds no part of a model ({', '.join(part.name for part in PARTS)})")


def export_checkpoint(
    run: str | os.PathLike[str], out: str | os.PathLike[str], step: int | None = None, ema: bool = True
) -> Path:
    """Writes the part that a run trains, as it is in one of its checkpoints, into the model directory `out`.

    step: of the checkpoint; None takes the last. ema: averaged weights, where the run keeps averages. UserError when `run` is
    no run directory, or has no such checkpoint.
    """
    recipe = read_recipe(Path(run) / RECIPE)
    state = load_full(run, step, ema)
    stage = recipe.options.build(Processes(), recipe.seed)
    stage.save(Path(out), state)
    return Path(out)


def _write_adapted(
    source: Path, target: Path, dtype: torch.dtype | None, layout: Layout, adapter: str | os.PathLike[str]
) -> None:
    """The backbone with an adapter merged into it; added up in float32, so it takes memory for the whole backbone. Quantized
    experts are merged one by one and rounded again, with a warning that says what this costs."""
    if Source(source).scheme is not None:
        warnings.warn(str(merge_quantized(source, adapter, target)), stacklevel=3)
        return
    merged = merge_lora(load_adapter(load_backbone(source, dtype=torch.float32), adapter))
    stored = Counter(kind for kind in WeightFiles(source).dtypes.values() if kind.is_floating_point)
    save_backbone(merged, target, layout, dtype or stored.most_common(1)[0][0])


def _write_file(source: Path, target: Path, dtype: torch.dtype | None) -> None:
    target.parent.mkdir(exist_ok=True)
    if dtype is not None and source.suffix == ".safetensors":
        weights = WeightFiles(source.parent, source.name)
        write_weights(target, {name: weights.tensor(name) for name in weights}, dtype)
    elif dtype is not None and source.suffix == ".pt":
        write_torch(target, read_torch(source), dtype)
    else:
        shutil.copyfile(source, target)


def _check_fit(folder: Path, chosen: dict[Part, Path]) -> None:
    """UserError when parts of different models were put together, or a file of settings is malformed."""
    parts = Parts(folder, torch.device("cpu"), torch.float32)
    if SETTINGS in chosen:
        _ = parts.defaults
    if BACKBONE in chosen and TEXT in chosen:
        words, first_code = len(parts.text), parts.config.image_token_offset
        if words > first_code:
            raise UserError(
                f"the text tokenizer of {chosen[TEXT]} has {words} tokens, but image codes begin at {first_code} "
                f"in the backbone of {chosen[BACKBONE]}: they belong to different models"
            )
        _ = parts.codebook_size  # raises when the image tokenizer has more codes than the backbone has room for
