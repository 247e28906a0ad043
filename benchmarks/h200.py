"""What one large GPU does with the released sizes, beside the floors: the 16 B backbone and the 6 B decoder.

    python -m benchmarks.h200 [--device cuda] [--tiny] [--quick] [--json FILE] [--threads N]

Random bfloat16 weights are made on the device, so nothing is read. It fits into 15 minutes: parts (PARTS), each with a time
bound after which it takes up nothing more; with --json a part that the file has finished is not run again, and one that fails
stops no other. First small networks on the device, and every path that only a GPU takes (gpu_paths.py), are held
against float32 on the CPU; then milliseconds a step of 32 tokens at batch 1, 8 and 32 (eager, with fixed shapes, and those
recorded as a CUDA graph), tokens a second when 1, 4 or 8 tokens are accepted a step, whole answers
through the batch engine, and seconds a picture of 1024 x 1024 at 8 and 50 steps. `theirs` is the floor of one H200
in bfloat16 (4.3 TB/s, 790 TFLOP/s): the time the bytes or the arithmetic take at least; ratio = floor / ours.
--tiny: the same through small networks, on any device; --quick: fewer batches and 2 steps a picture.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from benchmarks.gpu_paths import LARGEST, check_paths, distance
from benchmarks.quantized_16b import step_of
from benchmarks.static_step import StaticStep
from llada_uni.backbone import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.decoder.decode import ImageDecoder
from llada_uni.decoder.model import build_transformer, build_vae, released_decoder_config, released_vae_config
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.errors import UserError
from llada_uni.files.weights import read_json
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Settings
from llada_uni.image.codes import ImageCodes

BLOCK, PREFIX = 32, 128
FLOOR_STEP_MS = {1: 4.9, 8: 7.6, 32: 8.1}
FLOOR_PICTURE_S = {"turbo": 1.26, "base": 15.8}  # 8 evaluations of 158 ms; 50 steps with guidance
WANTED_MS, WANTED_TOKENS, WANTED_PICTURE_S = 7.0, 7000.0, {"turbo": 1.8, "base": 22.0}
PARTS = {"correctness": 180.0, "steps": 180.0, "answers": 180.0, "decoder": 240.0}  # seconds at most; 13 minutes in all


def tiny_backbone_config() -> BackboneConfig:
    return dataclasses.replace(
        BackboneConfig.released_16b(), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_experts=16,
        moe_intermediate_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=512,
        image_token_offset=384, num_experts_per_tok=4,
    )  # fmt: skip


def tiny_decoder_configs() -> tuple[dict[str, Any], dict[str, Any], tuple[int, int]]:
    """Transformer, VAE, and (codes, width) of the features."""
    transformer = released_decoder_config() | {
        "dim": 64, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [8, 12, 12],
        "cap_feat_dim": 32,
    }  # fmt: skip
    return transformer, released_vae_config() | {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1}, (64, 32)


def make_backbone(config: BackboneConfig, device: torch.device, dtype: torch.dtype) -> Backbone:
    """Random weights, made where and in what they compute."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Backbone(config, generator=torch.Generator(device).manual_seed(0))
    finally:
        torch.set_default_dtype(before)
    for router in model.routers():
        router.float()
    return model.eval().requires_grad_(False)


def make_decoder(
    configs: tuple[dict[str, Any], dict[str, Any], tuple[int, int]], device: torch.device, dtype: torch.dtype
) -> ImageDecoder:
    """Both variants share one transformer: their sizes are the same."""
    torch.manual_seed(0)
    transformer_config, vae_config, (codes, width) = configs
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            transformer = build_transformer(transformer_config).eval().requires_grad_(False)
            vae = build_vae(vae_config).eval().requires_grad_(False)
            sigvq = SigVQ(codes, width).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    both = {"turbo": transformer, "base": transformer}
    return ImageDecoder(device=device, dtype=dtype, sigvq=sigvq, transformers=both, vae=vae)


# --- correctness ---


@torch.inference_mode()
def check(device: torch.device, dtype: torch.dtype) -> list[common.Row]:
    """Small networks with the same weights, on the device and in float32 on the CPU. Raises AssertionError when apart."""
    cpu = torch.device("cpu")
    truth = make_backbone(tiny_backbone_config(), cpu, torch.float32)
    model = make_backbone(tiny_backbone_config(), device, dtype)
    model.load_state_dict(truth.state_dict())
    ids = torch.randint(0, 380, (4, 96), generator=torch.Generator().manual_seed(1))
    errors = {"backbone logits": distance(model(ids.to(device)), truth(ids))}
    decoder = make_decoder(tiny_decoder_configs(), device, dtype)
    reference = make_decoder(tiny_decoder_configs(), cpu, torch.float32)
    reference.transformer("turbo").load_state_dict(decoder.transformer("turbo").state_dict())
    reference.sigvq.load_state_dict(decoder.sigvq.state_dict())
    codes = ImageCodes((1, 2, 3, 4), 2, 2)
    state = torch.randn(decoder.latent_shape(codes, "turbo"), generator=torch.Generator().manual_seed(2))
    ours = decoder.velocity("turbo", state.to(device), 0.5, decoder.condition(codes))
    errors["decoder velocity"] = distance(ours, reference.velocity("turbo", state, 0.5, reference.condition(codes)))
    rows = [common.Row(f"{name}, small", "float32 on the CPU", "rel. error", error) for name, error in errors.items()]
    for row in rows:
        assert row.ours < LARGEST[dtype], f"{row.case}: {row.ours:.2e}, allowed {LARGEST[dtype]:.0e}"
    return rows


@torch.inference_mode()
def check_graph(device: torch.device, dtype: torch.dtype) -> common.Row:
    """A step of fixed shape: recorded as a CUDA graph where there is one, against the same step run operation by operation."""
    model = make_backbone(tiny_backbone_config(), device, dtype)
    truth, (recorded, replay) = static_step(model, 2)[1](), static_step(model, 2)
    if device.type == "cuda":
        recorded.capture()
    found = replay()
    equal = (found[0] == truth[0]).double().mean().item()
    assert equal == 1.0, f"CUDA graph: {equal:.3f} of the tokens are those of the step run operation by operation"
    return common.Row("CUDA graph, small", "operation by operation", "equal tokens", equal)


# --- backbone ---


def static_step(model: Backbone, batch: int) -> tuple[StaticStep, Callable[[], Any]]:
    """The step of fixed shape over random tokens behind random prefixes, and a call that takes it."""
    device, total = model.lm_head.weight.device, PREFIX + BLOCK
    step = StaticStep(model, batch, BLOCK, total)
    draw = torch.Generator().manual_seed(batch)
    tokens = torch.randint(0, common.mask_of(model), (batch, BLOCK), generator=draw).to(device)
    for begin in range(0, PREFIX, BLOCK):  # the prefix, block by block
        step(tokens, torch.full((batch,), begin, device=device))
    begins = torch.full((batch,), PREFIX, device=device)
    return step, lambda: step(tokens, begins)


def ways_of(model: Backbone, batch: int) -> dict[str, Callable[[], Any]]:
    """The step with growing caches, that of fixed shape, and the latter as a CUDA graph where it can be recorded."""
    ways = {"eager": step_of(model, batch, PREFIX, BLOCK), "fixed shape": static_step(model, batch)[1]}
    if not model.lm_head.weight.is_cuda:
        return ways
    recorded, replay = static_step(model, batch)
    try:
        recorded.capture()
    except RuntimeError as error:
        common.progress(f"no CUDA graph ({str(error).splitlines()[0][:100]})")
        torch.cuda.synchronize()
        return ways
    return ways | {"CUDA graph": replay}


@torch.inference_mode()
def backbone_rows(model: Backbone, batches: list[int], released: bool) -> list[common.Row]:
    rows: list[common.Row] = []
    for batch in batches:
        common.progress(f"steps at batch {batch}")
        times = {way: 1000 * common.median_seconds(call, 10, warm=3) for way, call in ways_of(model, batch).items()}
        for way, took in times.items():
            floor = FLOOR_STEP_MS.get(batch) if released else None
            more = {"wanted": WANTED_MS} if batch == 1 else {}
            rows.append(_against_floor(f"step, batch {batch}, {way}", "ms", took, floor, **more))
        best = min(times.values()) / 1000
        for accepted in (1, 4, 8):
            more = {"wanted": WANTED_TOKENS} if (batch, accepted) == (32, 4) else {}
            speed = batch * accepted / best
            rows.append(common.Row(f"batch {batch}, {accepted} accepted a step", "", "tokens/s", speed, more=more))
    return rows


def engine_rows(model: Backbone, batches: list[int], length: int) -> list[common.Row]:
    """Whole answers through the batch engine, 4 tokens accepted a step, prompts of 128."""
    rows = []
    settings = Settings(mask_id=common.mask_of(model), steps=BLOCK // 4, threshold=1.0, gen_length=length)
    for batch in batches:
        common.progress(f"answers at batch {batch}")
        requests = [Request(common.random_prompt(model, PREFIX, seed), settings) for seed in range(batch)]
        engine = BatchEngine(model, max_rows=batch)
        seconds = common.median_seconds(lambda engine=engine, requests=requests: engine.run(requests), 1)
        rows.append(common.Row(f"answers of {length}, batch {batch}", "", "tokens/s", batch * length / seconds))
    return rows


# --- decoder ---


def decoder_rows(decoder: ImageDecoder, side: int, steps: dict[str, int], released: bool) -> list[common.Row]:
    """Seconds a picture of side x side codes, by both samplers, from codes to pixels."""
    rows = []
    codes = ImageCodes(tuple(place % decoder.sigvq.codebook_size for place in range(side * side)), side, side)
    for variant, count in steps.items():
        common.progress(f"a picture, {variant}, {count} steps")

        def paint(variant: str = variant, count: int = count) -> None:
            decoder.decode(codes, variant, count, generator=torch.Generator().manual_seed(0))

        seconds = common.median_seconds(paint, 1)
        floor = FLOOR_PICTURE_S[variant] if released else None
        pixels = "x".join(map(str, decoder.size(codes, variant)))
        more = {"wanted": WANTED_PICTURE_S[variant]} if released else {}
        rows.append(_against_floor(f"picture {pixels}, {variant}, {count} steps", "s", seconds, floor, **more))
    return rows


def _against_floor(case: str, unit: str, ours: float, floor: float | None, **more: Any) -> common.Row:
    peer, ratio = ("floor", floor / ours) if floor is not None else ("", None)
    return common.Row(case, peer, unit, ours, floor, ratio, more)


def rows_of(part: str, device: torch.device, tiny: bool, quick: bool) -> Iterator[common.Row]:
    """The rows of one of PARTS."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    batches = [1, 2] if tiny else [1, 8] if quick else [1, 8, 32]
    if part == "correctness":
        yield from check(device, dtype)
        yield check_graph(device, dtype)
        yield from check_paths(device, dtype, tiny_backbone_config())
    elif part in ("steps", "answers"):
        model = make_backbone(tiny_backbone_config() if tiny else BackboneConfig.released_16b(), device, dtype)
        for batch in batches:
            if part == "steps":
                yield from backbone_rows(model, [batch], not tiny)
            else:
                yield from engine_rows(model, [batch], BLOCK if tiny else 256)
        if device.type == "cuda":
            yield common.Row(f"peak memory, {part}", "", "GiB", torch.cuda.max_memory_allocated() / 2**30)
    else:
        full = (released_decoder_config(), released_vae_config(), (16384, 4096))
        decoder = make_decoder(tiny_decoder_configs() if tiny else full, device, dtype)
        for variant, steps in ({"turbo": 8, "base": 50} if not tiny and not quick else {"turbo": 2, "base": 2}).items():
            yield from decoder_rows(decoder, 2 if tiny else 32, {variant: steps}, not tiny and not quick)


def measure(device: torch.device, tiny: bool, quick: bool, json: Path | None) -> Iterator[common.Row]:
    """All parts; the rows of those that `json` has finished come from there."""
    size = "tiny" if tiny else "quick" if quick else "full"
    kept = [common.Row(**row) for row in read_json(json)["rows"]] if json is not None and json.exists() else []
    marks = {part: f"part {part}, {size}" for part in PARTS}
    finished = [part for part, mark in marks.items() if any(row.case == mark for row in kept)]
    for part in finished:  # first, so that a run that is cut short loses none of them
        common.progress(f"{marks[part]}: finished before")
        yield from (row for row in kept if row.more.get("part") == marks[part])
    for part in [part for part in PARTS if part not in finished]:
        mark, bound = marks[part], PARTS[part]
        begin = time.monotonic()
        try:
            for row in rows_of(part, device, tiny, quick):
                yield dataclasses.replace(row, more={**row.more, "part": mark})
                if time.monotonic() - begin > bound:
                    raise TimeoutError(f"stopped after {bound:.0f} s")
        except (RuntimeError, AssertionError, TimeoutError) as error:  # a part that fails leaves the others their time
            yield common.Row(f"{mark}: {str(error).splitlines()[0][:120]}", "", "failed", 1.0)
        else:
            yield common.Row(mark, "", "s", time.monotonic() - begin, more={"part": mark})
        if device.type == "cuda":
            torch.cuda.empty_cache()


def checked_device(name: str, tiny: bool) -> torch.device:
    """The device to measure on; UserError where the full sizes have no GPU."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no GPU here; --device cpu --tiny tests the script")
    if device.type != "cuda" and not tiny:
        raise UserError(f"the full sizes need a GPU, not {device}; allowed on it: --tiny")
    return device


def main(given: list[str] | None = None) -> int:
    parser = common.arguments(
        __doc__,
        device={"default": "cuda", "help": "cuda, cuda:1, or with --tiny any other (default cuda)"},
        tiny={"action": "store_true", "help": "small networks: tests the script, says nothing about speed"},
    )
    options = common.start(parser, given)
    failed = []

    def rows() -> Iterator[common.Row]:
        for row in measure(checked_device(options.device, options.tiny), options.tiny, options.quick, options.json):
            failed.extend([row.case] if row.unit == "failed" else [])
            yield row

    return common.run(rows, options.json) or int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
