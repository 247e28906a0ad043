"""The 16 B backbone on a machine of 24 GiB without a GPU: written, quantized, loaded, run; peak memory and seconds.

    python -m benchmarks.quantized_16b --dir DIR [--layers 20] [--format int4] [--dtype bfloat16] [--keep] [--direct]
        [--quick] [--json FILE] [--threads N]

Random weights of the released shape and layout are written as bfloat16 shards (32 GB at 20 layers), quantized, loaded,
and compute steps of 32 tokens behind a prefix of 64. Every phase is a process of its own, so that its peak
resident memory is its own. The files are deleted in the end, the plain ones as soon as they are quantized (unless
--keep). --direct: random quantized weights are written at once, 8 GB of disk instead of 40, and nothing is quantized.
--quick: three layers with 128 experts, and the plain bfloat16 model beside it for comparison.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.random_quantized import write_random_quantized
from llada_uni.backbone import Backbone
from llada_uni.backbone.cache import KeyValueCache
from llada_uni.backbone.quantized_formats import make_scheme
from llada_uni.checkpoint.layout import FLOAT32_SUFFIXES, places
from llada_uni.checkpoint.load import Piece, load_backbone, write_shards
from llada_uni.checkpoint.quantize import quantize
from llada_uni.config import BackboneConfig
from llada_uni.files.weights import write_json

PREFIX, BLOCK, ACCEPTED = 64, 32, 4
_DRAWN = 2**24  # random numbers that all weights are cut from, each tensor at an offset of its own


def config_of(layers: int, quick: bool) -> BackboneConfig:
    config = dataclasses.replace(BackboneConfig.released_16b(), num_hidden_layers=layers)
    return dataclasses.replace(config, num_experts=128, vocab_size=16384, image_token_offset=8192) if quick else config


def write_random_model(folder: Path, config: BackboneConfig, max_shard_bytes: int = 10**9) -> None:
    """A directory of the released layout with random bfloat16 weights (the router float32), written shard by shard."""
    folder.mkdir(parents=True)
    write_shards(folder, _random_pieces(config), max_shard_bytes)
    write_json(folder / "config.json", config.to_json())


def _random_pieces(config: BackboneConfig) -> Iterator[Piece]:
    drawn = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(0)).mul_(config.initializer_range).bfloat16()
    offset = 0
    for place in places(config):
        dtype = torch.float32 if place.name.endswith(FLOAT32_SUFFIXES) else torch.bfloat16
        for name in place.released:
            offset = (offset + 1_000_003) % _DRAWN
            count = prod(place.released_shape)
            yield name, count * dtype.itemsize, partial(_random, drawn, offset, place.released_shape, dtype)


def _random(drawn: torch.Tensor, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    if len(shape) == 1:  # norms are one, the routers' biases (float32) zero
        return torch.full(shape, float(dtype != torch.float32), dtype=dtype)
    values = torch.empty(prod(shape), dtype=dtype)
    for part in values.split(_DRAWN):
        behind = drawn[offset : offset + len(part)]
        part[: len(behind)] = behind
        part[len(behind) :] = drawn[: len(part) - len(behind)]  # around the end
    return values.view(shape)


def quantize_phase(source: Path, target: Path, format: str) -> None:
    quantize(source, target, format)


@torch.inference_mode()
def run_phase(folder: Path, dtype: str) -> dict[str, float]:
    """Seconds to load, of the first step, and of a step; resident GiB after loading."""
    begin = time.perf_counter()
    model = load_backbone(folder, "cpu", getattr(torch, dtype))
    loaded = time.perf_counter() - begin
    after = peak_gib()
    step = step_of(model, batch=1, prefix=PREFIX, block=BLOCK)
    first = common.seconds_of(step)  # reads pages of the files that the prefix did not need
    return {"load": loaded, "load_peak": after, "first": first, "step": common.median_seconds(step, 7)}


def step_of(model: Backbone, batch: int, prefix: int, block: int) -> Callable[[], Tensor]:
    """One step of `batch` sequences: a block of open places behind a cached prefix, the choice at all of them.

    The block holds random tokens: masks alone would all go to the same few experts of an untrained network.
    """
    weight = model.lm_head.weight
    draw = torch.Generator().manual_seed(batch)
    ids = torch.randint(0, common.mask_of(model), (batch, prefix + block), generator=draw).to(weight.device)
    cache = KeyValueCache(model.config, batch, prefix + block, weight.device, weight.dtype)
    model.hidden(ids[:, :prefix], cache=cache)
    places = torch.arange(prefix, prefix + block, device=weight.device)[None]

    def step() -> Tensor:
        hidden = model.hidden(ids[:, prefix:], position_ids=places, cache=cache)
        cache.truncate(prefix)
        return model.logits(hidden).argmax(-1)

    return step


def in_own_process(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """(result, seconds, peak resident GiB) of a call in a fresh process. Raises RuntimeError when it dies."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(theirs, torch.get_num_threads(), call, *arguments))
    process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process of {call.__name__} ended with code {process.exitcode}") from None
    process.join()
    return result


def _measured(pipe: Any, threads: int, call: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    result = call(*arguments)
    seconds = time.perf_counter() - begin
    pipe.send((result, seconds, peak_gib()))


def peak_gib() -> float:
    """Peak resident memory of this process in GiB (Linux). `ru_maxrss` would count what the parent had at the fork."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def measure(
    where: Path, config: BackboneConfig, format: str, dtype: str, compare: bool, keep: bool, direct: bool
) -> list[common.Row]:
    """All phases, with their files in `where`."""
    plain, small = where / "plain", where / format
    size = f"{config.num_hidden_layers} layers"
    rows: list[common.Row] = []

    def add(case: str, unit: str, ours: float, theirs: float | None = None, **more: Any) -> None:
        ratio = None if theirs is None else (theirs / ours)
        rows.append(common.Row(f"{case}, {size}", "bfloat16" if theirs else "", unit, ours, theirs, ratio, more))

    theirs: dict[str, float] | None = None
    their_peak: float | None = None
    if direct:
        common.progress(f"writing random {format} weights")
        in_own_process(write_random_quantized, small, config, make_scheme(format))
    else:
        common.progress("writing random weights")
        _, seconds, peak = in_own_process(write_random_model, plain, config)
        add("write, bfloat16", "s", seconds, peak_gib=peak, bytes=_bytes(plain))
        common.progress(f"quantizing to {format}")
        _, seconds, peak = in_own_process(quantize_phase, plain, small, format)
        add(f"quantize to {format}", "s", seconds)
        add(f"quantize to {format}, peak memory", "GiB", peak, allowed=6.0, bytes=_bytes(small))
        if compare:
            common.progress("running the plain model")
            theirs, _, their_peak = in_own_process(run_phase, plain, dtype)
        if not keep:
            shutil.rmtree(plain)
    common.progress(f"running the {format} model")
    ours, _, peak = in_own_process(run_phase, small, dtype)
    other = theirs or {}
    add(f"load {format}", "s", ours["load"], other.get("load"))
    add(f"load {format}, peak memory", "GiB", ours["load_peak"], other.get("load_peak"))
    add(f"load and run {format}, peak memory", "GiB", peak, their_peak)
    add(f"one step of {BLOCK} tokens, prefix {PREFIX}", "s", ours["step"], other.get("step"))
    speed, their_speed = ACCEPTED / ours["step"], ACCEPTED / other["step"] if other else None
    add(f"{ACCEPTED} accepted a step", "tokens/s", speed, their_speed)
    rows[-1] = dataclasses.replace(rows[-1], ratio=their_speed and speed / their_speed)
    add("first step, files not yet in memory", "s", ours["first"], other.get("first"))
    return rows


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def layers_of(options: argparse.Namespace) -> int:
    """What --layers says, else those of the released model, or three where it must be quick."""
    return options.layers or (3 if options.quick else BackboneConfig.released_16b().num_hidden_layers)


def main(given: list[str] | None = None) -> int:
    parser = common.arguments(
        __doc__,
        dir={"type": Path, "help": "where the files go (default: a temporary directory)"},
        layers={"type": int, "default": None, "help": "layers of the network (default 20: 16 B parameters)"},
        format={"choices": ("int4", "int8", "float8"), "default": "int4"},
        dtype={"choices": ("bfloat16", "float32"), "default": "bfloat16", "help": "what all but the experts compute in"},
        keep={"action": "store_true", "help": "leave the files"},
        direct={"action": "store_true", "help": "write random quantized weights at once"},
    )
    options = common.start(parser, given)
    config = config_of(layers_of(options), options.quick)
    with common.working_folder(options, "quantized-") as where:
        case = (where, config, options.format, options.dtype, options.quick, options.keep, options.direct)
        return common.run(lambda: measure(*case), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
