"""Commands about pictures as codes, and about model directories: encode, decode, verify, convert, info.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llada_uni.cli.common import (
    Device,
    Json,
    ModelOptions,
    Revision,
    check_images,
    check_output,
    emit,
    progress_bar,
    say,
    stderr,
    write_result,
)
from llada_uni.cli.groups import with_groups
from llada_uni.cli.settings import Settings
from llada_uni.errors import UserError
from llada_uni.files.outputs import check_writable
from llada_uni.requests import Decode

if TYPE_CHECKING:
    from llada_uni.backbone.speed import Measured
    from llada_uni.checkpoint.layout import Layout
    from llada_uni.image.tokenizer import Mode
    from llada_uni.verify.verify import Check

Out = Annotated[Path, typer.Option("--out", "-o", help="File to write (.png, .jpg, .webp).")]


@with_groups
def encode(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File (.json or .pt); default: JSON to stdout.")] = None,
    mode: Annotated[str, typer.Option(help="How it is scaled: understand, edit, or raw (not at all).")] = "understand",
    fit: Annotated[str, typer.Option(help="With --mode edit: crop (as published), resize, or auto.")] = "auto",
    format: Annotated[
        str | None, typer.Option(help="json, or pt: the published file of a pre-tokenized image; default: by the name.")
    ] = None,
    *,
    loading: ModelOptions,
) -> None:
    """Turn an image into its grid of codes. Files of codes are taken wherever images are.

    Example: `llada-uni encode fox.png -o fox.json`

    Example: `llada-uni encode photo.jpg --mode edit --format pt -o photo.pt`
    """
    target = _code_file(out, format)
    check_images([image])
    uni = loading.load()
    codes = uni.encode_image(image, cast("Mode", mode), fit)  # it refuses any other
    if target is None:
        emit(codes.to_json())
        return
    try:
        uni.save_codes(codes, target)
    except OSError as error:
        raise UserError(f"cannot write {target} ({error.strerror or error})") from error
    say(f"{target}  {codes.height} x {codes.width} codes")


def _code_file(out: Path | None, format: str | None) -> Path | None:
    """The file to write, or None for stdout. UserError for a format that is unknown or does not go with the name."""
    if format not in (None, "json", "pt"):
        raise UserError(f"unknown format {format!r}; allowed: json, pt")
    if out is None:
        if format == "pt":
            raise UserError("--format pt needs --out FILE.pt: a torch file does not go to stdout")
        return None
    if format is not None and out.suffix.lower() != f".{format}":
        raise UserError(f"--format {format} goes with a name that ends with .{format}, not {out.name}")
    if out.suffix.lower() not in (".json", ".pt"):
        raise UserError(f"{out.name} must end with .json or .pt")
    check_writable(out)
    return out


@with_groups
def decode(
    codes: Annotated[Path, typer.Argument(help="A file of codes (.json or .pt); - for JSON on stdin.")],
    out: Out = Path("decoded.png"),
    *,
    settings: Annotated[dict[str, Any], Settings(Decode)],
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Decode a grid of codes to an image.

    Example: `llada-uni encode fox.png | llada-uni decode - -o again.png --decoder base`
    """
    check_output(out, settings.get("decoder"))
    request = Decode(codes=_given_codes(codes), **settings)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.run(request, report)
    write_result(result, out, as_json, source=str(codes))


def _given_codes(codes: Path) -> Any:
    """Codes from JSON, checked; a .pt is left to the model. UserError for anything else."""
    if codes.suffix.lower() == ".pt":
        return codes
    try:
        text = sys.stdin.read() if str(codes) == "-" else codes.read_text(encoding="utf-8")
        data = json.loads(text)
    except OSError as error:
        raise UserError(f"cannot read {codes} ({error.strerror or error})") from None
    except ValueError:
        raise UserError(f"{codes} is not JSON with height, width and codes") from None
    from llada_uni.image.codes import ImageCodes

    return ImageCodes.from_json(data)


def verify(
    folder: Annotated[Path, typer.Argument(help="A directory of recorded numbers.")],
    device: Device = None,
    double: Annotated[bool, typer.Option("--double", help="Run the language model in float64.")] = False,
    as_json: Json = False,
) -> None:
    """Check that this machine computes the recorded numbers; exit code 1 if a check fails.

    Every check whose files are there is run, in float32; sizes come from the directory's own configs.

    Example: `llada-uni verify tests/parity/golden`
    """
    with stderr().status("loading"):
        import torch

        from llada_uni.tasks.parts import choose_device
        from llada_uni.verify.verify import verify as run_checks
    from rich.console import Console

    console = Console(highlight=False, markup=False)

    def show(check: Check) -> None:
        if not as_json:
            error = "-" if check.largest_error is None else f"{check.largest_error:.2e}"
            mark = "ok  " if check.ok else "FAIL"
            line = f"{mark}  {check.name:44} largest error {error:>9}  allowed {check.tolerance:.0e}"
            console.print(f"{line}  {check.detail}".rstrip(), soft_wrap=True)

    dtype = torch.float64 if double else torch.float32
    checks = run_checks(folder, device=choose_device(device or "cpu"), on_check=show, dtype=dtype)
    failed = [check.name for check in checks if not check.ok]
    errors = [check.largest_error for check in checks if check.largest_error is not None]
    if as_json:
        emit(
            {
                "folder": str(folder),
                "ok": not failed,
                "checks": [check.to_json() for check in checks],
                "largest_error": max(errors, default=None),
            }
        )
    else:
        total = f"{len(checks) - len(failed)} of {len(checks)} checks passed"
        console.print(f"{total}, largest error {max(errors, default=float('nan')):.2e}")
    if failed:
        raise typer.Exit(1)


def convert(
    source: Annotated[str, typer.Argument(help="A model directory, or org/name on the hub.")],
    target: Annotated[Path, typer.Argument(help="The directory to make.")],
    to: Annotated[
        str | None,
        typer.Option(help="released (one tensor an expert) or stacked (ours); default: the other one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model directory with the backbone in the other layout; nothing is lost.

    Example: `llada-uni convert models/world /tmp/world-stacked --to stacked`
    """
    with stderr().status("converting"):
        from llada_uni.checkpoint.load import convert as run
        from llada_uni.tasks.find import find_model

        written = run(find_model(source), target, cast("Layout | None", to))  # it refuses any other
    if as_json:
        emit({"source": str(source), "target": str(target), "layout": written})
    else:
        say(f"{target}  {written} layout")


def info(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="DIR|ORG/NAME", help="A model directory, or a name on the hub; default: the shipped one."),
    ] = None,
    revision: Revision = None,
    speed: Annotated[
        bool, typer.Option("--speed", help="Also measure how this machine computes the backbone's products (docs/speed.md).")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the parts of a model directory, their parameters, and the memory their weights need.

    Example: `llada-uni info models/world`

    Example: `llada-uni info models/world --speed`
    """
    with stderr().status("loading"):
        from llada_uni.checkpoint.info import model_info
        from llada_uni.hub.listing import Access
        from llada_uni.hub.skeleton import looked_at
        from llada_uni.tasks.find import find_model

        with looked_at(folder or str(find_model()), Access(revision)) as (model, _):
            found = replace(model_info(model), folder=folder or str(model))
            sizes = _trained_sizes(model)
            measured = _speed_of(model) if speed else []
    if as_json:
        emit({**found.to_json(), "sizes": sizes, **({"speed": [asdict(row) for row in measured]} if speed else {})})
        if found.broken:
            raise typer.Exit(1)
        return
    from rich.console import Console
    from rich.table import Table

    kinds = list(found.memory())
    table = Table("part", "layout", "dtype", "tensors", "parameters", "active", *kinds, title=found.folder)
    table.columns[0].no_wrap = True
    for column in table.columns[3:]:
        column.justify = "right"
    for part in found.to_json()["parts"]:
        memory = [_size(part["memory"][kind]) for kind in kinds]
        dtypes = ", ".join(name.removeprefix("torch.") for name in part["dtypes"])
        counts = (f"{part['tensors']:,}", f"{part['parameters']:,}", f"{part['active']:,}")
        table.add_row(part["name"], part["layout"] or "", dtypes, *counts, *memory)
    table.add_section()
    memory = [_size(found.memory()[kind]) for kind in kinds]
    table.add_row("all", "", "", "", f"{found.parameters:,}", "", *memory)
    Console(highlight=False, width=max(132, Console().width)).print(table)
    print(f"images of {', '.join(sizes)} px" if sizes else "images of any size")
    if found.missing:
        print(f"not here: {', '.join(found.missing)}")
    for part in found.broken:
        print(f"broken: {part.name}: {part.reason}")
    for note in found.notes:
        print(f"note: {note}")
    if speed:
        _print_speed(measured)
    if found.broken:
        raise typer.Exit(1)


def _speed_of(model: Path) -> list[Measured]:
    """How this machine computes the products of the backbone in a directory. UserError where there is none."""
    from llada_uni.backbone.speed import measure
    from llada_uni.checkpoint.source import Source

    return measure(Source(model).config)


def _print_speed(measured: list[Measured]) -> None:
    from rich.console import Console
    from rich.table import Table

    from llada_uni.backbone.speed import native

    names = list(dict.fromkeys(name for row in measured for name in row.milliseconds))
    table = Table("product", "weights", "chosen", *names, title="milliseconds of a block of 32 tokens, float32")
    for row in measured:
        times = (f"{row.milliseconds[name]:.3f}" if name in row.milliseconds else "" for name in names)
        table.add_row(row.name, " x ".join(map(str, row.shape)), row.form, *times)
    Console(highlight=False, width=max(132, Console().width)).print(table)
    print(f"native: {native()}")


def _trained_sizes(folder: Path) -> list[str]:
    """The sizes that a directory was trained for, WIDTHxHEIGHT; [] for all, or where its settings cannot be read."""
    from llada_uni.tasks.defaults import Defaults

    try:
        return list(Defaults.from_folder(folder).sizes)
    except UserError as error:
        say(f"note: {error}")
        return []


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
