"""How the layers of a stage are computed faster: attention in bfloat16 on a CPU, and whether torch can compile them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from llada_uni.backbone.native.build import find_compiler
from llada_uni.errors import UserError
from llada_uni.training.loop.parallel import ParallelOptions, is_sharded
from llada_uni.training.loop.stage import Stage


@contextmanager
def plain_attention(wanted: bool) -> Iterator[None]:
    """torch's fused attention has a slow backward pass in bfloat16 on a CPU; plain products take half of its time there.

    They must stay in bfloat16: by default torch does them in float32, which takes longer than the fused pass.
    """
    if not wanted:
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # not of CUDA alone, whatever its name says
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def check_compilable(stage: Stage, parallel: ParallelOptions) -> None:
    """UserError where `loop.compile` has nothing to compile, or cannot."""
    if not stage.compile_units():
        raise UserError("loop.compile: this stage has no layers that could be compiled; leave it out")
    if parallel.activation_checkpointing or is_sharded(stage):
        raise UserError("loop.compile goes with neither parallel.shard nor parallel.activation_checkpointing yet: choose one")
    if find_compiler() is None:
        raise UserError("loop.compile needs a C++ compiler, and none was found (CXX says where one is)")
