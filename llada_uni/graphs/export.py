"""Graphs of a model directory written as files, each run once and compared with the usual path.

Parts -> `block` (block_step.py), `condition`, `evaluation`, `pixels` (decoding.py) -> torch.export -> OUT/NAME.onnx, or
OUT/NAME.pt2 -> run by onnxruntime, or by torch -> the largest difference from what the usual path computes.
`graphs.json` beside them says all that a program needs to use them: shapes, tokens with a meaning, sizes, steps.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from llada_uni.decoder.decode import Variant
from llada_uni.decoder.transformer import context_of
from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.files.weights import write_json
from llada_uni.graphs import block_step
from llada_uni.graphs.block_step import BlockStep, block_case, dense_experts
from llada_uni.graphs.decoding import Condition, Evaluation, Pixels
from llada_uni.image.codes import ImageCodes
from llada_uni.tasks.checks import check_grid
from llada_uni.tasks.parts import Parts
from llada_uni.text.prompts import Turn

FILE = "graphs.json"
FORMATS = ("onnx", "pt2")
WHICH = ("block", "decoder")
CAPACITY = 1024  # positions of the block graph's memory where none are asked for, at most
TOLERANCE = 1e-4  # of a difference, as a share of the largest value where that is above 1
Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Wanted:
    """which: of `WHICH`. capacity: positions before an open block. height, width: pixels of a decoded image. decoder: turbo or
    base. prompt: of an image, whose token ids are noted. What is None is the model directory's own."""

    which: tuple[str, ...] = WHICH
    format: str = "onnx"
    capacity: int | None = None
    height: int | None = None
    width: int | None = None
    decoder: str | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"unknown format {self.format!r}; allowed: {', '.join(FORMATS)}")
        if not self.which or set(self.which) - set(WHICH):
            raise UserError(f"unknown graphs {', '.join(self.which)!r}; allowed: {', '.join(WHICH)}")
        if self.prompt is not None and self.which != WHICH:
            raise UserError(f"the ids of a prompt are for drawing, which takes both graphs: {', '.join(WHICH)}")
        if self.decoder not in (None, *get_args(Variant)):
            raise UserError(f"unknown decoder {self.decoder!r}; allowed: {', '.join(get_args(Variant))}")
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if self.format == "onnx" and missing:
            raise UserError("ONNX needs packages: pip install 'llada-uni[onnx]'; --format pt2 needs none")


@dataclass(frozen=True)
class Graph:
    """A module to be exported. inputs: of the export and of the comparison; expected: what the usual path computes for them."""

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    expected: Tensors


@torch.no_grad()
def export_graphs(
    parts: Parts, out: str | os.PathLike[str], wanted: Wanted, on_graph: Callable[[str], None] = lambda name: None
) -> dict[str, float]:
    """Writes the directory `out`, complete or not at all; graphs that are there already are replaced.

    parts: opened on the CPU in float32 with plain experts. on_graph: called with the name of each graph before it is made.
    Returns for each graph the largest difference from the usual path (see `TOLERANCE`). UserError for sizes and parts that the
    model does not have, and for an `out` that holds something else.
    """
    assert parts.device.type == "cpu" and parts.dtype == torch.float32
    notes: dict[str, Any] = {"format": wanted.format}
    found = {}
    with new_folder(out, (FILE,)) as folder:
        for which in WHICH:
            if which not in wanted.which:
                continue
            graphs, notes[which] = {"block": _block, "decoder": _decoder}[which](parts, wanted)
            for graph in graphs:
                on_graph(graph.name)
                path = folder / f"{graph.name}.{wanted.format}"
                with dense_experts(parts.backbone) if which == "block" else _nothing():
                    _write(graph, path)
                found[graph.name] = largest_difference(_run(path, graph), graph.expected)
        if wanted.prompt is not None:
            notes["prompt"] = _prompt(parts, wanted.prompt, notes)
        write_json(folder / FILE, {**notes, "largest_difference": found})
    return found


def _block(parts: Parts, wanted: Wanted) -> tuple[list[Graph], dict[str, Any]]:
    config, text, length = parts.config, parts.text, parts.defaults.block_length
    most = config.max_position_embeddings
    capacity = min(most, CAPACITY) if wanted.capacity is None else wanted.capacity
    if not 0 < capacity <= most:
        raise UserError(f"the capacity is {capacity}; allowed: 1 to {most}, the positions this model has")
    committed = min(capacity, 2 * length + 1)
    inputs, expected = block_case(parts.backbone, length, capacity, committed)
    graph = Graph("block", BlockStep(parts.backbone), inputs._asdict(), block_step.OUTPUTS, expected)
    notes = {
        "block_length": length,
        "capacity": capacity,
        "layers": config.num_hidden_layers,
        "key_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocabulary": config.vocab_size,
        "first_code": config.image_token_offset,
        "codes": parts.codebook_size,
        "mask_id": text.mask_id,
        "end_id": text.eos_id,
    }
    return [graph], notes


def _decoder(parts: Parts, wanted: Wanted) -> tuple[list[Graph], dict[str, Any]]:
    decoder, defaults = parts.decoder, parts.defaults
    variant: Any = wanted.decoder or defaults.decode.decoder
    if variant not in decoder.variants:
        raise UserError(f"this model has no {variant} decoder; it has: {', '.join(decoder.variants) or 'none'}")
    height, width = wanted.height or defaults.generate.height, wanted.width or defaults.generate.width
    grid = check_grid(height, width, parts.pixels_per_code)
    transformer, rows = decoder.transformer(variant), 2 if variant == "base" else 1
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(parts.codebook_size, (1, grid[0] * grid[1]), generator=generator)
    image = ImageCodes(tuple(codes[0].tolist()), *grid)
    size = decoder.latent_shape(image, variant)[1:]
    condition = decoder.condition(image)
    condition = torch.cat((condition, torch.zeros_like(condition)))[:rows]
    state, time = torch.randn(1, *size, generator=generator), torch.tensor([0.25])
    velocity = decoder.velocity(variant, state.expand(rows, *size), float(time), condition)
    tokens = context_of(transformer, condition, size).tokens
    graphs = [
        Graph("condition", Condition(decoder.sigvq, transformer, grid, size, rows), {"codes": codes}, ["tokens"], (tokens,)),
        Graph(
            "evaluation",
            Evaluation(transformer, grid, size, condition.shape[-1], rows),
            {"state": state, "time": time, "tokens": tokens},
            ["velocity"],
            (velocity,),
        ),
        Graph("pixels", Pixels(decoder.vae), {"latents": state}, ["image"], (decoder.pixels(state),)),
    ]
    steps = defaults.decode.base_steps if rows == 2 else defaults.decode.turbo_steps
    notes = {
        "decoder": variant,
        "steps": steps,
        "rows": rows,
        "rows_of_codes": grid[0],
        "columns_of_codes": grid[1],
        "height": height,
        "width": width,
        "latents": [1, *size],
    }
    return graphs, notes


def _prompt(parts: Parts, text: str, notes: dict[str, Any]) -> dict[str, Any]:
    """Token ids of drawing a text, and of guidance's other branch, each with the image header. UserError if they do not fit."""
    form, decoder = parts.format, notes["decoder"]
    header = form.image_header(decoder["rows_of_codes"], decoder["columns_of_codes"])
    turns = [Turn("user", (text,))]
    ids = [*form.prompt("generate", turns), *header]
    needed, capacity = len(ids) + decoder["rows_of_codes"] * decoder["columns_of_codes"], notes["block"]["capacity"]
    if needed > capacity:
        raise UserError(f"this prompt and its image take {needed} positions; the capacity is {capacity}")
    return {"text": text, "ids": ids, "unconditional": [*form.unconditional("generate", turns), *header]}


def _write(graph: Graph, path: Path) -> None:
    with _quiet():
        program = torch.export.export(graph.module.eval(), tuple(graph.inputs.values()), strict=False)
        if path.suffix == ".pt2":
            torch.export.save(program, path)
            return
        names = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
        made = torch.onnx.export(program, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]  # a program is taken
        assert made is not None
        made.save(path)  # weights of more than 2 GB go into a file beside it


def _run(path: Path, graph: Graph) -> Tensors:
    """The outputs of a file for a graph's inputs."""
    if path.suffix == ".pt2":
        found = torch.export.load(path).module()(*graph.inputs.values())
        return (found,) if isinstance(found, Tensor) else tuple(found)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    made = session.run(list(graph.outputs), {name: tensor.numpy() for name, tensor in graph.inputs.items()})
    return tuple(torch.from_numpy(array) for array in made)


def largest_difference(found: Tensors, expected: Tensors) -> float:
    """The largest one of all tensors, each divided by its largest expected value where that is above 1."""
    pairs = list(zip(found, expected, strict=True))
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1.0)) for a, b in pairs)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)
