"""The command `llada-uni export-graph`: one step of the backbone, and the decoder, as files for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llada_uni.cli.common import Json, Model, Revision, check_model, emit, say, stderr


def export_graph(
    out: Annotated[Path, typer.Argument(help="The directory to write.")],
    which: Annotated[str, typer.Option(help="block (a step of the backbone), decoder, or both: block,decoder.")] = (
        "block,decoder"
    ),
    format: Annotated[str, typer.Option(help="onnx, or pt2 (torch.export).")] = "onnx",
    capacity: Annotated[
        int | None, typer.Option(help="Positions before the open block; default: the model's, at most 1024.")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels of a decoded image; default: the model's.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels of a decoded image; default: the model's.")] = None,
    decoder: Annotated[str | None, typer.Option(help="turbo or base; default: the model's.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Of an image: its token ids are noted in graphs.json.")] = None,
    model: Model = None,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Write a step of the backbone and the decoder as graphs of fixed shapes, and compare each with the usual path.

    examples/onnx_only.py draws with them and neither torch nor this package. Exit code 1 where a graph differs by more than
    1e-4.

    Example: `llada-uni export-graph out/graphs --capacity 256`

    Example: `llada-uni export-graph out/graphs --which decoder --format pt2 -m path/to/model`
    """
    check_model(model, revision)
    with stderr().status("loading") as status:
        from llada_uni.graphs.export import FILE, TOLERANCE, Wanted, export_graphs
        from llada_uni.model import UniModel

        wanted = Wanted(tuple(which.split(",")), format, capacity, height, width, decoder, prompt)
        uni = UniModel.from_pretrained(model, "cpu", "float32", quantization="plain", revision=revision)
        found = export_graphs(uni.parts, out, wanted, lambda name: status.update(f"exporting {name}"))
    wrong = {name: difference for name, difference in found.items() if not difference <= TOLERANCE}
    if as_json:
        emit({"folder": str(out), "format": format, "largest_difference": found, "equal": not wrong})
    else:
        for name, difference in found.items():
            verdict = f"MORE than {TOLERANCE:g}" if name in wrong else "equal"
            say(f"{out / name}.{format}  largest difference from the usual path {difference:.1e}: {verdict}")
        say(f"{out / FILE}")
    if wrong:
        raise typer.Exit(1)
