"""Reading and writing the files of a model directory, without knowing what is in them.

Config files (JSON) and weight files (safetensors, one or several with an index) ->
tensors, one at a time, straight into a module that was built on the meta device; so loading needs the memory
of the weights once, plus one tensor. Writing goes to a temporary file beside the target, which then takes its
name: a crash never leaves half a file. Nothing here executes what it reads: safetensors, JSON, and torch
files with weights only.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from llada_uni.errors import UserError
from llada_uni.files.configs import read_json as read_json  # readers know it from here
from llada_uni.files.model_dir import BACKBONE, INDEX, Part, find_weights, weight_files

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


def default_dtype(device: str | torch.device) -> torch.dtype:
    """What a part computes in unless told: float32 on the CPU, bfloat16 elsewhere (the released choice)."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def add_file(digest: hashlib._Hash, path: str | os.PathLike[str]) -> None:
    """Feeds the content of a file to a hash, a piece at a time."""
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)


def require(config: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    """UserError naming the first of `names` that `config` lacks."""
    for name in names:
        if name not in config:
            raise UserError(f'{where} lacks the field "{name}"')


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`; when the block ends well the file takes the name, else it is
    removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(
            0o644
        )  # mkstemp makes it private; a model directory is for everyone who may read the folder
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """JSON, atomically."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_weights(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None
) -> None:
    """One safetensors file, atomically; floating tensors in `dtype` (None: as they are)."""
    with atomic_file(path) as temporary:
        save_file(
            {name: storable(tensor, dtype) for name, tensor in tensors.items()}, temporary, {"format": "pt"}
        )


def write_part_weights(
    folder: str | os.PathLike[str], part: Part, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None
) -> None:
    """The weight file of a part in its `folder`, atomically, under the name we write; files under its other names go."""
    target = Path(folder) / part.weights[0]
    write_weights(target, tensors, dtype)
    for file in weight_files(Path(folder), part.weights):
        if file != target:
            file.unlink()


def storable(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """A contiguous CPU copy (safetensors refuses views that share memory), floating tensors in `dtype`."""
    tensor = tensor.detach().to("cpu")
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.clone(memory_format=torch.contiguous_format)


class WeightFiles:
    """The tensors of one weight file, or of several with `NAME.safetensors.index.json`; opened lazily, read
    one by one.

    `shapes`: name -> shape; `dtypes`: name -> dtype; `tensor(name)`. Only headers are read before a tensor is
    asked for. Raises UserError for missing, truncated or damaged files, and for an index that does not fit
    its files.
    """

    def __init__(self, folder: str | os.PathLike[str], names: str | tuple[str, ...] = BACKBONE.weights) -> None:
        """names: those that the file may have (files/model_dir.py), the only *.safetensors file standing in for them."""
        folder = Path(folder)
        self.path = find_weights(folder, (names,) if isinstance(names, str) else names)
        self._where: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        if self.path.name.endswith(INDEX):
            self._read_index(folder, self.path)
        else:
            self._read_headers(self.path)

    def _read_index(self, folder: Path, index: Path) -> None:
        listed = read_json(index).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
            raise UserError(f'{index} lacks the table "weight_map"')
        for file in sorted(set(listed.values())):
            if Path(file).name != file:
                raise UserError(f"{index} names a file outside its folder: {file}")
            if not (folder / file).is_file():
                raise UserError(f"{index} names {file}, which is not there; fetch that file as well")
            self._read_headers(folder / file)
        advice = "they are of different revisions: fetch both again"
        for tensor, file in listed.items():
            if self._where.get(tensor) != folder / file:
                raise UserError(f"{index} says that {file} holds the tensor {tensor}, but it does not; {advice}")
        for tensor, path in self._where.items():
            if tensor not in listed:
                raise UserError(f"{path} holds the tensor {tensor}, which {index.name} does not know; {advice}")

    def _read_headers(self, file: Path) -> None:
        for name in self._handle(file).keys():
            view = self._handle(file).get_slice(name)
            kind = view.get_dtype()
            if kind not in _DTYPES:
                raise UserError(f"{file}: the tensor {name} has the unknown type {kind}")
            self._where[name], self.shapes[name], self.dtypes[name] = (
                file,
                tuple(view.get_shape()),
                _DTYPES[kind],
            )

    def _handle(self, file: Path) -> Any:
        if file not in self._open:
            try:
                self._open[file] = safe_open(file, framework="pt")
            except (SafetensorError, OSError, ValueError) as error:
                size = file.stat().st_size if file.exists() else 0
                reason = " ".join(str(error).split())[:100]
                raise UserError(f"{file} ({size} bytes) is truncated or damaged ({reason}); fetch it again") from error
            except RuntimeError as error:  # torch's word where the system refuses to map a file larger than its memory
                reason = " ".join(str(error).split())[:100]
                raise UserError(f"{file} cannot be mapped ({reason}); free memory, or write it in smaller shards") from error
        return self._open[file]

    @property
    def files(self) -> list[Path]:
        """The weight files themselves, without the index."""
        return sorted(set(self._where.values()))

    def file_of(self, name: str) -> Path:
        """The file that holds the tensor."""
        return self._where[name]

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor, on the CPU, in the file's dtype."""
        if name not in self._where:
            raise UserError(f"{self.path} lacks the tensor {name}")
        return self._handle(self._where[name]).get_tensor(name)

    def release(self) -> None:
        """Unmap the files, but for tensors still in use: what was read of them no longer counts as memory."""
        self._open.clear()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of the tensor along its first axis; nothing else of it is read."""
        if name not in self._where:
            raise UserError(f"{self.path} lacks the tensor {name}")
        return self._handle(self._where[name]).get_slice(name)[start:stop]


def check_shape(where: object, name: str, expected: tuple[int, ...], found: tuple[int, ...]) -> None:
    """UserError with both shapes when they differ."""
    if tuple(expected) != tuple(found):
        raise UserError(f"{where}: the tensor {name} has the shape {list(found)}, expected {list(expected)}")


def check_names(where: object, expected: Iterator[str] | set[str], found: Iterator[str] | set[str]) -> None:
    """UserError naming the first tensor that is missing, or else the first that nobody knows."""
    expected, found = set(expected), set(found)
    for problem, names in (
        ("lacks the tensor", expected - found),
        ("has the unknown tensor", found - expected),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(f"{where} {problem} {min(names)}{more}")


def set_tensor(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Puts `value` in the place of the parameter or buffer `name` (which may be on the meta device)."""
    owner = module.get_submodule(name.rpartition(".")[0])
    leaf = name.rpartition(".")[2]
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=value.is_floating_point())
    else:
        owner._buffers[leaf] = value


def stream_into(
    module: nn.Module,
    weights: WeightFiles,
    device: str | torch.device,
    dtype: torch.dtype | None,
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Fills `module` (usually on the meta device) from `weights`, one tensor at a time.

    `rename`: a file's name -> the module's; `dtype` None keeps the file's. All names and shapes are checked
    before the first tensor is read. Raises UserError for missing or unknown tensors and wrong shapes.
    """
    ours = check_tensors(module, weights, rename)
    for name in module.state_dict():
        tensor = weights.tensor(ours[name])
        target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        set_tensor(module, name, tensor.to(device=device, dtype=target))


def check_tensors(
    module: nn.Module, weights: WeightFiles, rename: Callable[[str], str] = lambda name: name
) -> dict[str, str]:
    """The module's tensors -> their names in the file. UserError for missing or unknown tensors and wrong shapes."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    ours = {rename(name): name for name in weights}
    back = {
        name: ours.get(name, name) for name in expected
    }  # errors speak of the file's names where they can
    check_names(weights.path, set(expected), set(ours))
    for name, shape in expected.items():
        check_shape(weights.path, back[name], shape, weights.shapes[ours[name]])
    return ours


def load_torch(path: str | os.PathLike[str]) -> Any:
    """What a torch file holds, read with weights only: tensors, numbers, strings and tables of them; no code runs.

    UserError for a missing or damaged file, and for one that holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damaged and forbidden files with many types
        raise UserError(f"{path} is damaged or holds more than plain tensors") from error


def read_torch(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """A plain state dict from a torch file, read with weights only (no code runs); UserError when it is not
    one."""
    data = load_torch(path)
    if not isinstance(data, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in data.values()):
        raise UserError(f"{path} must hold a plain table of tensors")
    return data


def write_torch(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None
) -> None:
    """A plain state dict as a torch file, atomically."""
    with atomic_file(path) as temporary:
        torch.save({name: storable(tensor, dtype) for name, tensor in tensors.items()}, temporary)
