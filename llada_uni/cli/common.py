"""What the commands share: options, the model, progress on stderr, one JSON object on stdout, files written
in one step.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llada_uni.errors import UserError
from llada_uni.files.outputs import check_takes_files, check_writable

if TYPE_CHECKING:
    from rich.console import Console

    from llada_uni.model import UniModel
    from llada_uni.results import ImageResult, OnProgress

PANEL: Any = {"rich_help_panel": "Model"}
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Model directory, or org/name on the hub; default: LLADA_UNI_MODEL, else the shipped model.",
        **PANEL,
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub; default: main.", **PANEL)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: a GPU if there is one.", **PANEL)]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float16; default: float32 on the CPU, else bfloat16.", **PANEL)
]
Quantization = Annotated[
    str | None, typer.Option(help="Experts in memory as int8, int4 or float8, or plain; default: as they are stored.", **PANEL)
]
Offload = Annotated[bool, typer.Option("--offload", help="The decoder's transformer and VAE are in memory by turns.", **PANEL)]
Tile = Annotated[
    int | None, typer.Option(help="Pixels: images with longer sides go through the VAE in tiles of this size.", **PANEL)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class ModelOptions:
    """Which model a command loads and how; every command that loads one takes these options (`cli/groups.py`)."""

    model: Model = None
    revision: Revision = None
    device: Device = None
    dtype: Dtype = None
    quantization: Quantization = None
    offload: Offload = False
    tile: Tile = None

    def load(self, message: str = "loading") -> UniModel:
        """The model, with a line on stderr meanwhile. UserError where `UniModel.from_pretrained` raises it."""
        check_model(self.model, self.revision)
        with stderr().status(message):
            from llada_uni.model import UniModel

            chosen = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
            given = {name: value for name, value in chosen.items() if value is not None}
            return UniModel.from_pretrained(given.pop("model", None), **given)


def check_model(name: str | None, revision: str | None = None) -> None:
    """UserError for a model that cannot be one, before anything slow is imported."""
    from llada_uni.hub.names import is_id, model_here, no_model

    if name is not None and model_here(name, revision) is None and not is_id(name):
        raise no_model(name)


def check_images(paths: Iterable[Path]) -> None:
    """UserError for an image that is not there, before a model is loaded. Files of codes are left to their reader."""
    from llada_uni.image.paths import image_file, is_code_file

    for path in paths:
        if not is_code_file(path):
            image_file(path)


@contextmanager
def progress_bar() -> Iterator[OnProgress | None]:
    """A callback that moves a bar for each stage of a task; None, and no output, if stderr is no terminal."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from llada_uni.results import STAGES

    columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bars: dict[str, Any] = {}

        def move(step: Any) -> None:
            """One bar a stage; it starts again with the next picture or answer."""
            if step.stage not in bars:
                bars[step.stage] = bar.add_task(STAGES[step.stage], total=step.total)
            elif step.done < bar.tasks[bars[step.stage]].completed:
                bar.reset(bars[step.stage], total=step.total)
            bar.update(bars[step.stage], completed=step.done, total=step.total)

        yield move


def emit(data: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(data, ensure_ascii=False))


def say(line: str) -> None:
    """A line for the person, on stderr."""
    print(line, file=sys.stderr)


def check_output(path: Path, decoder: str | None) -> Path:
    """Refuses an output before any work is done: pictures need a picture's ending, codes `.json`, and a place to be."""
    if decoder == "none":
        if path.suffix.lower() != ".json":
            raise UserError(f"with --decoder none the codes are written: {path.name} must end with .json")
    else:
        from llada_uni.results import image_format

        image_format(path)
    check_writable(path)
    return path


def write_result(result: ImageResult, path: Path, as_json: bool, **more: Any) -> None:
    """Writes the picture (or its codes), and says so."""
    if result.pixels is None:
        write_json_file(result.codes.to_json(), path)
    else:
        result.save(path)
    for notice in result.notices:
        say(f"note: {notice}")
    if as_json:
        emit({"file": str(path), **more, **result.to_json()})
        return
    if result.text:
        say(f"thought: {result.text}")
    work = result.evaluations
    say(
        f"{path}  seed {result.seed}, {result.seconds['total']:.1f} s, "
        f"evaluations: backbone {work.backbone}, decoder {work.decoder}"
    )


def write_json_file(data: dict[str, Any], path: Path) -> None:
    from llada_uni.files.weights import write_json

    try:
        write_json(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from error


def make_folder(path: Path) -> Path:
    """The directory, made if it is not there; UserError when it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory {path} ({error.strerror or error})") from error
    check_takes_files(path)
    return path
