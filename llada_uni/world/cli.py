"""Commands of the small world: `demo` shows every task on its model, `data world` writes its samples as records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llada_uni.cli import data
from llada_uni.cli.common import Json, ModelOptions, emit, make_folder, progress_bar, say
from llada_uni.cli.groups import with_groups


@with_groups
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the page and its pictures.")] = Path(
        "out/demo"
    ),
    *,
    loading: ModelOptions,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pictures.")] = 1,
    as_json: Json = False,
) -> None:
    """Show every task once and write a page about it.

    Example: `llada-uni demo --out out/demo`, then open out/demo/index.html.
    """
    from llada_uni.world.demo.demo import run_demo

    uni = loading.load()
    with progress_bar() as report:
        results = run_demo(uni, make_folder(out), seed, say, report)
    if as_json:
        emit(results)


def world(
    out: Annotated[Path, typer.Argument(help="The folder to fill.")],
    count: Annotated[int, typer.Option(min=1, help="How many records.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same records.")] = 0,
    split: Annotated[str, typer.Option(help="train or heldout.")] = "train",
    mixture: Annotated[
        str,
        typer.Option(
            help="default (all tasks), first, places, reading, drills, finding, asking, late, hard, worked, told, "
            "counting, talk, unreasoned or answered."
        ),
    ] = "default",
    shares: Annotated[
        list[str] | None, typer.Option(help="task=weight or task/kind=weight, in place of a mixture; may be repeated.")
    ] = None,
    side: Annotated[int, typer.Option(min=16, help="Pixels of a picture's side.")] = 192,
    form: Annotated[str, typer.Option("--format", help="jsonl (pictures in files beside it) or webdataset (tar).")] = "jsonl",
) -> None:
    """Write samples of the small world as conversation records, as an example of the format and to train on.

    The same command goes on where an interrupted one stopped.

    Example: `llada-uni data world my-world --count 5000 --shares t2i=1 --shares understand/count=0.5`
    """
    from llada_uni.world.data.world_files import write_world
    from llada_uni.world.data.world_records import WorldRecords, parse_shares
    from llada_uni.world.data.world_records import mixture as mixture_of

    weights = parse_shares(shares) if shares else mixture_of(mixture)
    with data.bar("writing shards") as move:
        write_world(WorldRecords(count, seed, weights, side, split), out, form, move)
    say(f"{out}  {count:,} records ({split}), pictures of {side} px")
