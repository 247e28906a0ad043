"""The backbone's weights: loading, saving and converting, tensor by tensor.

What flows through: a directory with config.json and safetensors in either layout (layout.py) -> a `Backbone`
in ours, and back. A released model directory has these files at its top; a directory of recorded numbers has
them in `backbone/`. Memory: loading takes the weights once plus one tensor; saving and converting take one
shard. Writing is atomic file by file, and all files of one call take their names together at its end.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors.torch import save_file

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.files import (
    WeightFiles,
    atomic_file,
    check_names,
    check_shape,
    default_dtype,
    set_tensor,
    storable,
    write_json,
)
from llada_uni.checkpoint.layout import FLOAT32_SUFFIXES, Layout, Place, layout_of, places, released_shapes
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError

MAX_SHARD_BYTES = 5 * 10**9
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def backbone_folder(folder: str | os.PathLike[str]) -> Path:
    """Where the backbone's config.json lies: `folder/backbone` or `folder` itself. UserError when in
    neither."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no model directory {folder}")
    for place in (folder / "backbone", folder):
        if (place / "config.json").is_file():
            return place
    raise UserError(f"{folder} has no backbone (config.json with its weights, at the top or in backbone/)")


def open_weights(folder: Path, config: BackboneConfig) -> tuple[WeightFiles, Layout]:
    """The weights of a backbone, with every name and shape checked against the config."""
    weights = WeightFiles(folder)
    layout = layout_of(weights)
    expected = released_shapes(config) if layout == "released" else {p.name: p.shape for p in places(config)}
    check_names(weights.path, set(expected), set(weights))
    for name, shape in expected.items():
        check_shape(weights.path, name, shape, weights.shapes[name])
    return weights, layout


def _target_dtype(name: str, found: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    if not found.is_floating_point:
        return found
    wanted = wanted or found
    return torch.promote_types(wanted, torch.float32) if name.endswith(FLOAT32_SUFFIXES) else wanted


def load_backbone(
    folder: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    experts: str = "grouped",
) -> Backbone:
    """The backbone of a model directory, in evaluation mode, without gradients.

    dtype None: float32 on the CPU, bfloat16 elsewhere; the router stays in float32. Raises UserError for a
    missing part, config field or tensor, an unknown tensor, a wrong shape (expected and found), a truncated
    file.
    """
    folder = backbone_folder(folder)
    config = BackboneConfig.from_json(folder / "config.json")
    weights, layout = open_weights(folder, config)
    dtype = dtype or default_dtype(device)
    with torch.device("meta"):
        model = Backbone(config, experts=experts)
    for place in places(config):
        sources = place.released if layout == "released" else (place.name,)
        kind = _target_dtype(place.name, weights.dtypes[sources[0]], dtype)
        if layout == "released" and place.stacked:
            value = torch.empty(place.shape, dtype=kind, device=device)
            for expert, name in enumerate(sources):
                value[expert].copy_(weights.tensor(name))
        else:
            value = weights.tensor(sources[0]).to(device=device, dtype=kind)
        set_tensor(model, place.name, value)
    model.reset_load()  # the only tensors that no file carries are the routers' counters
    return model.eval().requires_grad_(False)


def save_backbone(
    model: Backbone,
    folder: str | os.PathLike[str],
    layout: Layout = "released",
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json and the weights (shards with an index when larger than `max_shard_bytes`),
    atomically.

    dtype None keeps the weights' own; with one, the router still stays in float32.
    """
    state = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    table = places(model.config)
    check_names("the model to save", {place.name for place in table}, set(shapes))

    def read(place: Place, expert: int | None) -> torch.Tensor:
        return state[place.name] if expert is None else state[place.name][expert]

    def dtype_of(place: Place) -> torch.dtype:
        return state[place.name].dtype

    folder = Path(folder)
    _write(folder, _pieces(table, layout, read, dtype_of, dtype), max_shard_bytes)
    write_json(folder / "config.json", model.config.to_json())


Piece = tuple[str, int, Callable[[], torch.Tensor]]  # name, bytes, how to get the tensor to be stored


def _pieces(
    table: list[Place],
    layout: Layout,
    read: Callable[[Place, int | None], torch.Tensor],
    dtype_of: Callable[[Place], torch.dtype],
    dtype: torch.dtype | None,
) -> Iterator[Piece]:
    """The tensors of one layout, in order. `read(place, expert)`: our tensor, or one expert of it."""
    for place in table:
        kind = dtype_of(place) if dtype is None else _target_dtype(place.name, dtype_of(place), dtype)
        if layout == "released" and place.stacked:
            todo = [(name, place.released_shape, expert) for expert, name in enumerate(place.released)]
        else:
            todo = [(place.name, place.shape, None)]
        for name, shape, expert in todo:
            count = torch.Size(shape).numel()

            def get(
                place: Place = place, expert: int | None = expert, kind: torch.dtype = kind
            ) -> torch.Tensor:
                return storable(read(place, expert), kind)

            yield name, count * kind.itemsize, get


def _write(folder: Path, pieces: Iterator[Piece], max_shard_bytes: int) -> None:
    shards: list[list[Piece]] = [[]]
    room = max_shard_bytes
    for piece in pieces:
        if shards[-1] and piece[1] > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(piece)
        room -= piece[1]
    count = len(shards)
    names = [_SINGLE] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    with ExitStack() as together:  # every temporary file is complete before the first takes its name
        files = [together.enter_context(atomic_file(folder / name)) for name in names]
        for file, shard in zip(files, shards, strict=True):
            save_file({name: get() for name, _, get in shard}, file, {"format": "pt"})
        if count > 1:
            listed = {piece[0]: name for name, shard in zip(names, shards, strict=True) for piece in shard}
            total = sum(piece[1] for shard in shards for piece in shard)
            write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": listed})
    _remove_others(folder, {*names, *([_INDEX] if count > 1 else [])})


def _remove_others(folder: Path, keep: set[str]) -> None:
    """Weights of an earlier save would be read instead of, or beside, the new ones."""
    for file in [folder / _INDEX, folder / _SINGLE, *folder.glob("model-?????-of-?????.safetensors")]:
        if file.name not in keep:
            file.unlink(missing_ok=True)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    layout: Layout | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Layout:
    """Copies a model directory with the backbone in the other layout (or the given one); returns the layout
    written.

    Lossless when dtype is None. Everything else in the directory is copied as it is. `target` must not exist
    yet; it appears complete or not at all. Raises UserError like `load_backbone`.
    """
    source, target = Path(source), Path(target)
    folder = backbone_folder(source)
    if target.exists():
        raise UserError(f"{target} exists already; give a new directory")
    if layout not in (None, "released", "stacked"):
        raise UserError(f"unknown layout {layout!r}; allowed: released, stacked")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} lies inside {source}; give a directory outside it")
    config = BackboneConfig.from_json(folder / "config.json")
    weights, found = open_weights(folder, config)
    layout = layout or ("stacked" if found == "released" else "released")

    def read(place: Place, expert: int | None) -> torch.Tensor:
        if found == "stacked":
            whole = weights.tensor(place.name)
            return whole if expert is None else whole[expert]
        if expert is not None or not place.stacked:
            return weights.tensor(place.released[expert or 0])
        return torch.stack([weights.tensor(name) for name in place.released])

    def dtype_of(place: Place) -> torch.dtype:
        return weights.dtypes[place.name if found == "stacked" else place.released[0]]

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        skip = {str(folder / name) for name in (_SINGLE, _INDEX)} | {str(path) for path in set(weights.files)}
        shutil.copytree(
            source,
            temporary,
            ignore=lambda place, names: [name for name in names if str(Path(place) / name) in skip],
            dirs_exist_ok=True,
        )
        pieces = _pieces(places(config), layout, read, dtype_of, dtype)
        _write(temporary / folder.relative_to(source), pieces, max_shard_bytes)
        temporary.chmod(0o755)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return layout
