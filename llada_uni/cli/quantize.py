"""The command `llada-uni quantize`: a model directory with its routed experts in one byte or half a byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from llada_uni.cli.common import Json, emit, say, stderr


def quantize(
    source: Annotated[str, typer.Argument(help="A model directory, or org/name on the hub: plain, or released FP8.")],
    target: Annotated[Path, typer.Argument(help="The directory to make.")],
    format: Annotated[str, typer.Option("--format", help="int8, int4 or float8.")] = "int4",
    group: Annotated[int, typer.Option(help="Weights that share a scale in int4: 32, 64, 128 or 256.")] = 128,
    as_json: Json = False,
) -> None:
    """Write a model directory whose routed experts take one byte (int8, float8) or half a byte (int4) a weight.

    Everything else stays as it is; the result opens like any other directory. Works shard by shard, in a few GB.

    Example: `llada-uni quantize models/world /tmp/world-int4 --format int4`
    """
    from llada_uni.checkpoint.quantize import quantize as run
    from llada_uni.tasks.find import find_model

    folder = find_model(source)
    with _bar() as move:
        done = run(folder, target, format, group, on_progress=move)
    if as_json:
        sizes = {"bytes_before": done.bytes_before, "bytes_after": done.bytes_after}
        emit({"source": str(source), "target": str(target), **done.scheme.to_json(), **sizes})
    else:
        say(f"{target}  {format}, backbone {done.bytes_before / 1e9:.3g} GB -> {done.bytes_after / 1e9:.3g} GB")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A callback that moves a bar; None if stderr is no terminal."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("quantizing experts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
