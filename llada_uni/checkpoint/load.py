"""The backbone's weights: loading, saving and converting, tensor by tensor.

A directory with config.json and safetensors in either layout (layout.py) -> a `Backbone`
in ours, and back. A released model directory has these files at its top; a directory of recorded numbers has
them in `backbone/`. Memory: loading takes the weights once plus one tensor; saving and converting take one
shard. Writing is atomic file by file, and all files of one call take their names together at its end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save_file

from llada_uni.backbone import Backbone
from llada_uni.backbone.quantized import QuantizedMatrix, is_aligned, scheme_of, use_quantized_experts
from llada_uni.backbone.quantized_formats import FORMATS, Scheme, make_scheme
from llada_uni.checkpoint.layout import (
    FLOAT32_SUFFIXES,
    Layout,
    Place,
    layout_of,
    places,
    quantized_shapes,
    released_shapes,
)
from llada_uni.checkpoint.mean import Mean
from llada_uni.checkpoint.source import Source, config_json
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.files.model_dir import BACKBONE, INDEX, check_links, weight_files
from llada_uni.files.weights import (
    WeightFiles,
    atomic_file,
    check_names,
    check_shape,
    default_dtype,
    set_tensor,
    storable,
    write_json,
)

MAX_SHARD_BYTES = 5 * 10**9
_SINGLE, _STEM = BACKBONE.weights[0], BACKBONE.weights[0].removesuffix(".safetensors")
_INDEX = f"{_SINGLE}{INDEX}"


def open_weights(folder: Path, config: BackboneConfig) -> tuple[WeightFiles, Layout]:
    """The plain weights of a backbone, with every name and shape checked against the config."""
    weights = WeightFiles(folder)
    layout = layout_of(weights)
    if any(name.endswith(("_proj.values", "_scale_inv", "_scale")) for name in weights):
        raise UserError(f"{folder} has quantized experts; this needs plain ones (llada-uni convert makes them)")
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
    quantization: str | None = None,
) -> Backbone:
    """The backbone of a model directory, in evaluation mode, without gradients.

    dtype None: float32 on the CPU, bfloat16 elsewhere; the router stays in float32. quantization: the form of the
    routed experts in memory: None as the directory stores them (plain, quantized, or released FP8), "plain", or
    "int8", "int4", "float8", made while loading. Tensors of the stacked layout and of quantized directories are
    mapped from the files where the dtype is theirs; nothing is held twice. Raises UserError for a missing part,
    config field or tensor, an unknown tensor, a wrong shape (expected and found), a truncated file.
    """
    source = Source(folder)
    scheme = _scheme_to_use(source.scheme, quantization)
    dtype = dtype or default_dtype(device)
    with torch.device("meta"):
        model = Backbone(source.config, experts=experts)
    if scheme is not None:
        use_quantized_experts(model, scheme)
    for place in places(source.config):
        if place.stacked and scheme is not None:
            _load_quantized(model, place, source, scheme, device)
        else:
            value = source.whole(place, device, _target_dtype(place.name, source.dtype(place), dtype))
            set_tensor(model, place.name, value)
        source.weights.release()
    model.reset_load()  # the only tensors that no file carries are the routers' counters
    return model.eval().requires_grad_(False)


def check_quantization(wanted: str | None) -> None:
    """UserError for a form of the experts that there is not."""
    if wanted not in (None, "plain", *FORMATS):
        raise UserError(f"unknown quantization {wanted!r}; allowed: plain, {', '.join(FORMATS)}")


def _scheme_to_use(stored: Scheme | None, wanted: str | None) -> Scheme | None:
    check_quantization(wanted)
    if wanted is None or (stored is not None and wanted == stored.format):
        return stored
    return None if wanted == "plain" else make_scheme(wanted)


def _load_quantized(
    model: Backbone, place: Place, source: Source, scheme: Scheme, device: str | torch.device
) -> None:
    """One place's experts, held by `scheme`: mapped, copied, or quantized one by one."""
    if source.ours and source.scheme == scheme:
        for part, tensor in source.packed(place)._asdict().items():
            usable = tensor if scheme.format != "int8" or is_aligned(tensor) else tensor.clone()
            set_tensor(model, f"{place.name}.{part}", usable.to(device))
        return
    with torch.device(device):
        matrix = QuantizedMatrix(scheme, *place.shape)
    for expert in range(place.shape[0]):
        if source.scheme == scheme:
            matrix.put_stored(expert, source.packed_expert(place, expert))
        else:
            matrix.put(expert, source.expert(place, expert).to(device))
    model.set_submodule(place.name, matrix)


def save_backbone(
    model: Backbone,
    folder: str | os.PathLike[str],
    layout: Layout = "released",
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json and the weights (shards with an index when larger than `max_shard_bytes`),
    atomically.

    dtype None keeps the weights' own; with one, the router still stays in float32. Quantized experts are
    written as they are, stacked, whatever the layout.
    """
    scheme = scheme_of(model)
    if scheme is not None:
        write_shards(Path(folder), _quantized_pieces(model, scheme, dtype), max_shard_bytes)
        write_json(Path(folder) / "config.json", config_json(model.config, scheme))
        return
    state = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    table = places(model.config)
    check_names("the model to save", {place.name for place in table}, set(shapes))

    def read(place: Place, expert: int | None) -> torch.Tensor:
        return state[place.name] if expert is None else state[place.name][expert]

    def dtype_of(place: Place) -> torch.dtype:
        return state[place.name].dtype

    folder = Path(folder)
    write_shards(folder, _pieces(table, layout, read, dtype_of, dtype), max_shard_bytes)
    write_json(folder / "config.json", config_json(model.config, None))


def _quantized_pieces(model: Backbone, scheme: Scheme, dtype: torch.dtype | None) -> Iterator[Piece]:
    state = model.state_dict()
    plain = {place.name for place in places(model.config) if not place.stacked}
    for name in quantized_shapes(model.config, scheme):
        found = state[name].dtype
        kind = found if dtype is None or name not in plain else _target_dtype(name, found, dtype)
        yield name, state[name].numel() * kind.itemsize, partial(storable, state[name], kind)


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
        todo: list[tuple[str, tuple[int, ...], int | None]]
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


def write_shards(folder: Path, pieces: Iterator[Piece], max_shard_bytes: int) -> None:
    """The backbone's weight files in `folder`: one, or shards with an index, all of them or none."""
    shards = group_pieces(pieces, max_shard_bytes)
    with ExitStack() as together:  # every temporary file is complete before the first takes its name
        files = [together.enter_context(atomic_file(folder / name)) for name in shards]
        for file, shard in zip(files, shards.values(), strict=True):
            write_shard(file, shard)
        write_index(folder, shards)
    _remove_others(folder, {*shards, *([_INDEX] if len(shards) > 1 else [])})


def group_pieces(pieces: Iterable[Piece], max_shard_bytes: int) -> dict[str, list[Piece]]:
    """The name of each weight file, and the tensors that go into it, in order."""
    shards: list[list[Piece]] = [[]]
    room = max_shard_bytes
    for piece in pieces:
        if shards[-1] and piece[1] > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(piece)
        room -= piece[1]
    count = len(shards)
    if count == 1:
        return {_SINGLE: shards[0]}
    return {f"{_STEM}-{i + 1:05}-of-{count:05}.safetensors": shard for i, shard in enumerate(shards)}


def write_shard(file: Path, shard: list[Piece]) -> None:
    """One weight file; the caller sees to it that it appears in one step."""
    save_file({name: get() for name, _, get in shard}, file, {"format": "pt"})


def write_index(folder: Path, shards: Mapping[str, list[Piece]]) -> None:
    """The table beside several weight files; none beside one."""
    if len(shards) > 1:
        listed = {piece[0]: name for name, shard in shards.items() for piece in shard}
        total = sum(piece[1] for shard in shards.values() for piece in shard)
        write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": listed})


def _remove_others(folder: Path, keep: set[str]) -> None:
    """Weights of an earlier save would be read instead of, or beside, the new ones."""
    for file in weight_files(folder, BACKBONE.weights):
        if file.name not in keep:
            file.unlink()


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    layout: Layout | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Layout:
    """Copies a model directory with the backbone in the other layout (or the given one); returns the layout
    written.

    Lossless when dtype is None; quantized experts, ours or released FP8, become plain again (in the head's
    dtype). Everything else in the directory is copied as it is. `target` must not exist yet; it appears complete
    or not at all. Raises UserError like `load_backbone`.
    """
    stored = Source(source)
    layout = layout or ("stacked" if stored.layout == "released" else "released")
    check_layout(layout)
    with new_directory(source, target, stored) as folder:
        convert_backbone(stored, folder, layout, dtype, max_shard_bytes)
    return layout


def check_layout(layout: str) -> None:
    """UserError for a layout that there is not."""
    if layout not in get_args(Layout):
        raise UserError(f"unknown layout {layout!r}; allowed: {', '.join(get_args(Layout))}")


def convert_backbone(
    stored: Source | Mean,
    folder: Path,
    layout: Layout,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes config.json and the weights of a backbone, plain, into `folder`; see `convert`."""

    def read(place: Place, expert: int | None) -> torch.Tensor:
        if expert is None:
            return stored.whole(place, "cpu", stored.dtype(place))
        return stored.expert(place, expert).to(stored.dtype(place))

    pieces = _pieces(places(stored.config), layout, read, stored.dtype, dtype)
    write_shards(folder, pieces, max_shard_bytes)
    written, plain = folder / BACKBONE.marker, stored.scheme is None
    if plain and not written.exists():
        shutil.copyfile(stored.folder / BACKBONE.marker, written)
    elif not plain:
        write_json(written, config_json(stored.config, None))


@contextmanager
def new_directory(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    stored: Source,
    copy: Callable[[str, str], object] = shutil.copy2,
) -> Iterator[Path]:
    """A copy of the model directory `source` without the backbone's weights, which takes the name `target` when the
    block ends well; gives the folder for the backbone's files. `copy`: how one file is copied.

    UserError when `target` exists, or lies inside `source`.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise UserError(f"{target} exists already; give a new directory")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{target} lies inside {source}; give a directory outside it")
    check_links(source)
    own = {*weight_files(stored.folder, BACKBONE.weights), stored.weights.path, *stored.weights.files}
    skip = {str(path) for path in own}
    with new_folder(target) as temporary:
        shutil.copytree(
            source,
            temporary,
            ignore=lambda place, names: [name for name in names if str(Path(place) / name) in skip],
            copy_function=copy,
            dirs_exist_ok=True,
        )
        yield temporary / stored.folder.relative_to(source)
