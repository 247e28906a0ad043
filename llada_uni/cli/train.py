"""Commands about training: train runs a recipe, export puts what was trained together as a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from llada_uni.cli.common import Json, emit, say, stderr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llada_uni.checkpoint.layout import Layout


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe: a file, or the name of a shipped one (llada-uni recipes).")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the recipe to change.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved recipe and what would be trained; train nothing.")
    ] = False,
    allow_change: Annotated[
        str | None,
        typer.Option(metavar="KEY,...", help="Keys that may differ from the run so far; what is not exact then is said."),
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key of this recipe: type and default.")] = False,
) -> None:
    """Train one stage from a recipe; the same command again goes on where it was stopped.

    A recipe is a YAML file: `stage` (what is trained), `out` (the run directory), `seed`, `loop` (steps, learning rate,
    schedule, checkpoints), `parallel` (how it is spread out), `options` (the stage's own). The run directory gets recipe.yaml,
    log.jsonl, tensorboard/, checkpoints/ and at the end model/, the trained part; `llada-uni export` puts parts together.

    Example: `llada-uni train smoke/s1`

    Example: `llada-uni train recipes/smoke/s1.yaml loop.steps=50 options.length=256 out=runs/mine`

    Example: `llada-uni train smoke/s1 loop.lr=1e-4 --allow-change loop.lr`

    Example: `torchrun --nproc-per-node 8 -m llada_uni train recipes/world/s1.yaml parallel.shard=true`
    """
    from llada_uni.files.shipped import find_recipe
    from llada_uni.training.loop.changes import parse_allowed
    from llada_uni.training.recipes import recipe as recipes
    from llada_uni.training.recipes.overview import overview

    chosen = recipes.read_recipe(find_recipe(recipe), changes or [])
    if keys:
        print("\n".join(recipes.describe_keys(chosen)))
    elif dry_run:
        print(f"{recipes.to_yaml(chosen)}\n{overview(chosen)}")
    else:
        recipes.train(chosen, parse_allowed(allow_change))


def list_recipes(
    name: Annotated[str | None, typer.Argument(help="Show this one, to be saved and changed.")] = None,
) -> None:
    """List the shipped recipes, or show one.

    Example: `llada-uni recipes smoke/s1 > mine.yaml`, then `llada-uni train mine.yaml`
    """
    from llada_uni.files.shipped import find_recipe, shipped_recipes

    if name is not None:
        print(find_recipe(name).read_text(encoding="utf-8"), end="")
        return
    for recipe, path in shipped_recipes().items():
        first = path.read_text(encoding="utf-8").split("\n", 1)[0]
        print(f"{recipe:24} {first.lstrip('# ') if first.startswith('#') else ''}".rstrip())


def export(
    out: Annotated[Path, typer.Argument(help="The model directory to write.")],
    sources: Annotated[list[Path], typer.Argument(help="Runs and model directories; later ones override earlier ones.")],
    dtype: Annotated[
        str | None, typer.Option(help="float16, bfloat16 or float32 for all weights; default: as they are.")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Of the experts: released (one tensor an expert) or stacked (ours).")
    ] = "released",
    adapter: Annotated[Path | None, typer.Option(help="A LoRA adapter to add to the backbone's weights.")] = None,
    average: Annotated[
        list[Path] | None,
        typer.Option(help="Runs that went on from the same weights, one --average each: the backbone is the mean of theirs."),
    ] = None,
    fraction: Annotated[
        float, typer.Option(help="With --average: how far to go to the mean from the backbone of the sources; 1: all the way.")
    ] = 1.0,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="With --average: weights that stay those of the sources, by name (* for anything), one --keep each."),
    ] = None,
    checkpoint: Annotated[
        int | None, typer.Option(help="Take the last source's part from its checkpoint of this step, not from its model/.")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema/--no-ema", help="With --checkpoint: the averaged weights, if kept.")] = True,
    as_json: Json = False,
) -> None:
    """Put trained parts together as one model directory, in the released layout.

    Example: `llada-uni export models/mine runs/my/quantizer runs/my/s2 runs/my/vae runs/my/decoder3 runs/my/distill`

    Example: `llada-uni export models/mine models/world runs/mine/s2 --dtype float16`

    Example: `llada-uni export models/mine models/world --adapter runs/world/lora/model/adapter`

    Example: `llada-uni export models/mine models/world --average runs/world/reward-51 --average runs/world/reward-52`

    Example: `llada-uni export models/mine models/world --average runs/world/reward-51 --fraction 0.75 --keep lm_head.weight`
    """
    import tempfile

    import torch

    from llada_uni.tasks.parts import choose_dtype
    from llada_uni.training.export import export_checkpoint, export_model

    chosen = None if dtype is None else choose_dtype(dtype, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as work, stderr().status("exporting"):
        if checkpoint is not None:
            sources = [*sources[:-1], export_checkpoint(sources[-1], work, checkpoint, ema)]
        written = export_model(out, sources, chosen, cast("Layout", layout), adapter, average or (), fraction, keep or ())
    if as_json:
        found = {name: _sources(folders) for name, folders in written.sources.items()}
        emit({"folder": str(out), "parts": found, "missing": [part.name for part in written.missing]})
        return
    for name, folders in written.sources.items():
        say(f"{name}: from {_sources(folders)}")
    if fraction != 1 or keep:
        kept = f", without {', '.join(keep)}" if keep else ""
        say(f"backbone: {fraction:g} of the way there from that of the other sources{kept}")
    for part in written.missing:
        say(f"not there: {part.name}, needed for {part.needed_for}")
    say(f"{out}  {layout} layout")


def _sources(folders: Sequence[Path]) -> str:
    names = ", ".join(map(str, folders))
    return names if len(folders) == 1 else f"the mean of {names}"
