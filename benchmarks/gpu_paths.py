"""Every path that only a GPU takes, held against the plain definition in float32 on the CPU, with small networks.

    from benchmarks.gpu_paths import check_paths; rows = list(check_paths(torch.device("cuda"), torch.bfloat16))

Grouped products, experts in int8, int4 and float8, the mask of FlexAttention, a step as a CUDA graph, and a collective of one
process (NCCL). On another device the same code runs what that device has, which tests the script. A row a path, with its
relative error; AssertionError where it is larger than rounding explains.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import Row
from llada_uni.backbone.attention import attend
from llada_uni.backbone.masks import Places, packed, packed_flex
from llada_uni.backbone.moe import Routing, grouped_experts, plain_experts
from llada_uni.backbone.quantized import MATRICES, QuantizedExperts
from llada_uni.backbone.quantized_formats import FORMATS, make_scheme
from llada_uni.config import BackboneConfig

LARGEST = {torch.float32: 1e-3, torch.bfloat16: 0.05}  # relative error that rounding explains
TOKENS = 96


def distance(found: Tensor, truth: Tensor) -> float:
    """Norm of the difference over norm of the truth."""
    return ((found.cpu().double() - truth.cpu().double()).norm() / truth.cpu().double().norm()).item()


@torch.inference_mode()
def check_paths(device: torch.device, dtype: torch.dtype, config: BackboneConfig) -> Iterator[Row]:
    """A row a path. config: of a small network."""
    errors: dict[str, Callable[[], float]] = {"grouped products": lambda: _grouped(device, dtype, config)}
    for format in FORMATS:
        errors[f"{format} experts"] = lambda format=format: _quantized(device, dtype, config, format)  # type: ignore[misc]
    errors["FlexAttention"] = lambda: _flex(device, dtype)
    errors["collective of one process"] = lambda: _collective(device)
    for name, error in errors.items():
        found = error()
        allowed = LARGEST[torch.bfloat16 if "experts" in name else dtype]  # on a processor too, quantized products are bfloat16
        assert found < allowed, f"{name}: {found:.2e}, allowed {allowed:.0e}"
        yield Row(f"{name}, small", "float32 on the CPU", "rel. error", found)


def _layer(config: BackboneConfig) -> tuple[Tensor, Routing, list[Tensor]]:
    draw = torch.Generator().manual_seed(0)
    count, width, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
    x = torch.randn(TOKENS, width, generator=draw)
    chosen = torch.stack([torch.randperm(count, generator=draw)[: config.num_experts_per_tok] for _ in range(TOKENS)])
    share = torch.rand(chosen.shape, generator=draw)
    shapes = ((inner, width), (inner, width), (width, inner))
    return x, Routing(share, chosen, share), [torch.randn(count, *shape, generator=draw) * 0.1 for shape in shapes]


def _moved(routing: Routing, device: torch.device) -> Routing:
    return Routing(*(part.to(device) for part in routing))


def _grouped(device: torch.device, dtype: torch.dtype, config: BackboneConfig) -> float:
    x, routing, matrices = _layer(config)
    found = grouped_experts(x.to(device, dtype), _moved(routing, device), *(m.to(device, dtype) for m in matrices))
    return distance(found, plain_experts(x, routing, *matrices))


def _quantized(device: torch.device, dtype: torch.dtype, config: BackboneConfig, format: str) -> float:
    """Against the definition on the weights that the stored numbers stand for."""
    x, routing, matrices = _layer(config)
    experts = QuantizedExperts(config, make_scheme(format))
    for name, matrix in zip(MATRICES, matrices, strict=True):
        for number, weight in enumerate(matrix):
            getattr(experts, name).put(number, weight)
    stands_for = [getattr(experts, name).weights(0, config.num_experts) for name in MATRICES]
    truth = plain_experts(x, routing, *stands_for)
    return distance(experts.to(device)(x.to(device, dtype), _moved(routing, device)), truth)


def _flex(device: torch.device, dtype: torch.dtype) -> float:
    """Three packed samples of two blocks, the second of which has a noised copy; FlexAttention against the dense mask."""
    length = 128
    at = torch.arange(length)
    places = Places((at // 48)[None], (at // 16 % 3).clamp(max=1)[None], (at // 16 % 3 == 2).long()[None])
    draw = torch.Generator().manual_seed(0)
    heads = [torch.randn(1, count, length, 16, generator=draw) for count in (4, 2, 2)]
    truth = attend(*heads, packed(places))
    mask = packed_flex(Places(*(part.to(device) for part in places)))
    return distance(attend(*(part.to(device, dtype) for part in heads), mask), truth)


def _collective(device: torch.device) -> float:
    """NCCL (gloo where there is no GPU) with one process: what it adds up must be what it was given."""
    import torch.distributed as dist

    numbers = torch.arange(1, 9, dtype=torch.float32, device=device)
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{Path(folder) / 'meet'}", rank=0, world_size=1)
        try:
            summed = numbers.clone()
            dist.all_reduce(summed)
        finally:
            dist.destroy_process_group()
    return distance(summed, numbers)
