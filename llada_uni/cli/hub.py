"""Commands about models on the hub: `pull` fetches one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llada_uni.cli.common import Json, Quantization, Revision, emit, say, stderr

if TYPE_CHECKING:
    from llada_uni.hub.batch import OnFetch


def pull(
    id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The model's name on the hub.")],
    to: Annotated[Path | None, typer.Option(help="Directory to fill; default: the hub's cache (HF_HOME).")] = None,
    parts: Annotated[
        str | None,
        typer.Option(help="Only these, with commas: backbone, image_tokenizer, vae, decoder, decoder-turbo; default: all."),
    ] = None,
    revision: Revision = None,
    quantization: Quantization = None,
    as_json: Json = False,
) -> None:
    """Fetch a model from the hub: resumed, every hash checked. With --quantization it is made smaller shard by shard.

    Token: HF_TOKEN. Only weights, JSON and tokenizer files are fetched, never code.

    Example: `llada-uni pull inclusionAI/LLaDA2.0-Uni`

    Example: `llada-uni pull inclusionAI/LLaDA2.0-Uni --quantization int4 --to llada-int4`
    """
    from llada_uni.hub.listing import Access
    from llada_uni.hub.pull import pull as fetch

    names = None if parts is None else [name.strip() for name in parts.split(",") if name.strip()]
    with fetch_bar() as on_fetch:
        folder = fetch(id, to, names, Access(revision), on_fetch, say)
    if as_json:
        emit({"id": id, "folder": str(folder)})
    else:
        say(f"{folder}  complete; try: llada-uni doctor {folder}")


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
