"""Commands about models on the hub and on this disk: `pull` fetches one, `doctor` examines one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llada_uni.cli.common import Json, Revision, emit, say, stderr

if TYPE_CHECKING:
    from llada_uni.doctor.doctor import Diagnosis
    from llada_uni.hub.batch import OnFetch


def pull(
    id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The model's name on the hub.")],
    to: Annotated[Path | None, typer.Option(help="Directory to fill; default: the hub's cache (HF_HOME).")] = None,
    parts: Annotated[
        str | None,
        typer.Option(help="Only these, with commas: backbone, image_tokenizer, vae, decoder, decoder-turbo; default: all."),
    ] = None,
    revision: Revision = None,
    quantization: Annotated[
        str | None,
        typer.Option(help="Experts as int8, int4 or float8, made on the way; the directory is then NAME-FORMAT without --to."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a model from the hub: resumed, every hash checked. With --quantization it is made smaller shard by shard.

    Token: HF_TOKEN. Only weights, JSON and tokenizer files are fetched, never code.

    Example: `llada-uni pull inclusionAI/LLaDA2.0-Uni`

    Example: `llada-uni pull inclusionAI/LLaDA2.0-Uni --quantization int4 --to llada-int4`
    """
    from llada_uni.hub.listing import Access
    from llada_uni.hub.pull import pull as fetch
    from llada_uni.hub.pull_quantized import pull_quantized

    names = None if parts is None else [name.strip() for name in parts.split(",") if name.strip()]
    with fetch_bar() as on_fetch:
        if quantization is None:
            folder = fetch(id, to, names, Access(revision), on_fetch, say)
        else:
            to = to or Path(f"{id.rpartition('/')[2]}-{quantization}")
            folder = pull_quantized(id, to, quantization, names, Access(revision), on_fetch, say)
    if as_json:
        emit({"id": id, "folder": str(folder)})
    else:
        say(f"{folder}  complete; try: llada-uni doctor {folder}")


def doctor(
    name: Annotated[str, typer.Argument(metavar="DIR|ORG/NAME", help="A model directory, or a name on the hub.")],
    revision: Revision = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every value and every hash, too; this takes minutes.")] = False,
    as_json: Json = False,
) -> None:
    """Examine a model: is it whole, what memory does each form need, what fits this machine, and the command to run it.

    Of a model on the hub only configs, tokenizer and headers are fetched. Exit code 1 if something is wrong.

    Example: `llada-uni doctor inclusionAI/LLaDA2.0-Uni`

    Example: `llada-uni doctor models/world --deep`
    """
    with stderr().status("examining") as status:
        from llada_uni.doctor.doctor import diagnose
        from llada_uni.hub.listing import Access

        found = diagnose(name, Access(revision), deep, on_check=status.update)
    if as_json:
        emit(found.to_json())
    else:
        _show(found)
    if not found.ok:
        raise typer.Exit(1)


def _show(found: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    from llada_uni.doctor.checks import to_line
    from llada_uni.hub.batch import gigabytes

    console = Console(highlight=False, markup=False, width=max(110, Console().width))
    print(found.name if found.commit is None else f"{found.name} at {found.commit}")
    for check in found.checks:
        print(to_line(check))
    drawing = found.settings["generate"]
    print(
        f"settings: profile {found.settings['profile']}; drawing {drawing['height']} x {drawing['width']}, "
        f"{drawing['codes']['steps']} steps, cfg_scale {drawing['cfg_scale']:g}"
    )
    table = Table("form", "backbone", "image tokenizer", "decoder, VAE", "working", "all", "with --offload", "in two steps")
    for column in table.columns[1:]:
        column.justify = "right"
    for need in found.needs:
        decoder = need.features + need.vae + need.transformer
        networks = (need.backbone, need.image_tokenizer, decoder, max(need.cache, need.pixels))
        table.add_row(need.form, *(gigabytes(size) for size in (*networks, need.all, need.offload, need.two_steps)))
    console.print(table)
    for device in found.devices:
        free = "" if device.free is None else f", {gigabytes(device.free)} free now"
        fit = next((fit for fit in found.fits if fit.device == device), None)
        best = "too small for every form" if fit is None else f"best: {fit.form}, {gigabytes(fit.needed)}"
        print(f"{device.name}: {gigabytes(device.memory)}{free}; {best}")
    for command in found.commands:
        print(command)


@contextmanager
def fetch_bar() -> Iterator[OnFetch | None]:
    """A callback that moves a bar of bytes; None (lines in its place) if stderr is no terminal."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bars: dict[str, Any] = {}

        def move(done: int, total: int, what: str) -> None:
            if what not in bars:
                bars[what] = bar.add_task(what, total=total)
            bar.update(bars[what], completed=done, total=total)

        yield move
