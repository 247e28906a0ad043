"""How a stage is spread over processes, from outside: its own files know nothing of it.

torchrun starts W processes -> `setup_processes` -> `parallelize(stage)` -> the loop runs the same on each of them.
- Without `shard` every process holds all weights, and `sum_gradients` adds up the gradients (data parallel).
- With `shard` (FSDP2) every process holds one part of every tensor along its first axis, and one layer at a time is put
  together for use. The stacked experts [E, I, D] are thereby cut along E: each process keeps, updates and saves its own
  experts. This is how experts are spread here; there is no routing of tokens between processes (expert parallelism).
- `replicate` groups of processes each hold a whole sharded copy (hybrid sharding: shard inside a node, replicate across).
- `activation_checkpointing` keeps only the inputs of each layer and computes the rest again in the backward pass.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from llada_uni.backbone.moe import Router
from llada_uni.backbone.quantized import QuantizedMatrix
from llada_uni.errors import UserError
from llada_uni.options import options
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Stage

BUCKET_BYTES = 32 * 2**20  # gradients are summed in pieces of this size: few calls, little extra memory


@options
class ParallelOptions:
    """shard: cut weights, gradients and optimizer state over the processes (no effect with one process).

    activation_checkpointing: less memory for about a third more computation. replicate: number of whole copies (with `shard`).
    """

    shard: bool = False
    activation_checkpointing: bool = False
    replicate: int = 1


def setup_processes(device: str | None = None) -> Processes:
    """Which of the processes this is among those that torchrun (or Ray Train) started; alone without them.

    device: "cpu" or "cuda"; default: CUDA where there is one. CPU processes talk through gloo, GPUs through NCCL.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and not dist.is_initialized():
        return Processes(device=kind)
    if kind == "cuda":
        kind = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
        torch.cuda.set_device(kind)
    if not dist.is_initialized():
        dist.init_process_group("gloo" if kind == "cpu" else "nccl")
        atexit.register(_leave)
    return Processes(dist.get_rank(), dist.get_world_size(), kind)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_sharded(stage: nn.Module) -> bool:
    """Whether `parallelize` cut its weights."""
    return isinstance(stage, FSDPModule)


def parallelize(stage: Stage, options: ParallelOptions, processes: Processes, precision: str = "float32") -> None:
    """Spreads a stage over the processes, in place. precision: float32, or bfloat16 for computation with sharded weights.

    Weights on the meta device get memory here, and `stage.materialize()` fills them.
    """
    if options.activation_checkpointing:
        for unit in stage.shard_units():
            recompute_in_backward(unit)
    if options.shard and processes.size > 1:
        shard(stage, options, processes, precision)
    on_meta = [module for module in stage.modules() if _has_meta(module)]
    for module in on_meta:
        module.to_empty(device=processes.device, recurse=False)
    stage.to(processes.device)
    if on_meta:
        stage.materialize()
    for tensor in (*stage.parameters(), *stage.buffers()):
        if processes.size > 1 and not isinstance(tensor, DTensor):
            dist.broadcast(tensor.data, src=0)


def _has_meta(module: nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(tensor.is_meta for tensor in own)


def shard(stage: Stage, options: ParallelOptions, processes: Processes, precision: str) -> None:
    """FSDP2 on every unit, then on the whole stage (embeddings, head, final norm)."""
    if options.replicate < 1 or processes.size % options.replicate:
        raise UserError(f"parallel.replicate is {options.replicate}; it must divide the number of processes, {processes.size}")
    shape = (options.replicate, processes.size // options.replicate)
    mesh = init_device_mesh(processes.torch_device.type, shape, mesh_dim_names=("replicate", "shard"))
    mesh = mesh if options.replicate > 1 else mesh["shard"]
    low = torch.bfloat16 if precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    for unit in stage.shard_units():
        for module in unit.modules():
            if isinstance(module, Router):  # decides in float32, whatever the rest computes in
                fully_shard(module, mesh=mesh)
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    # What the root takes in is a whole batch: latents and weights of the loss must not be rounded.
    whole = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(stage, mesh=mesh, mp_policy=whole)
    for name in ("loss", "evaluate", "pictures"):  # what stands for `forward`: the root's own weights are whole inside
        register_fsdp_forward_method(stage, name)
    for module in stage.modules():
        if isinstance(module, FSDPModule):  # sums, not means: the loop divides by the weight of the global batch
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def forget_whole_weights(stage: nn.Module) -> None:
    """Gives up weights that FSDP has put together, so that their next use sees the present values of the parts."""
    for module in stage.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def whole_weights(stage: nn.Module) -> Iterator[None]:
    """Inside the block every process holds all weights of a sharded stage, so that each may run as many forwards as it likes.

    All processes enter and leave together, inside `loss` or `evaluate`, where the root's own weights are whole anyway. Without
    sharding nothing happens.
    """
    units = [module for module in stage.modules() if isinstance(module, FSDPModule) and module is not stage]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)


def recompute_in_backward(unit: nn.Module) -> None:
    """Makes a module keep only its inputs, and run a second time in the backward pass (activation checkpointing)."""
    unit.forward = partial(
        checkpoint, unit.forward, use_reentrant=False, context_fn=lambda: (nullcontext(), _buffers_kept(unit))
    )


@contextmanager
def _buffers_kept(unit: nn.Module) -> Iterator[None]:
    """Counters (the routers' load) must not count the second run: it works on copies of the buffers (quantized weights do not
    change)."""
    kept = [(module._buffers, dict(module._buffers)) for module in unit.modules() if not isinstance(module, QuantizedMatrix)]
    for buffers, originals in kept:
        buffers.update({name: buffer.clone() for name, buffer in originals.items() if buffer is not None})
    try:
        yield
    finally:
        for buffers, originals in kept:
            buffers.update(originals)


def sum_gradients(grads: list[Tensor], processes: Processes) -> None:
    """Gradients become their sums over all processes (for weights that every process holds whole)."""
    if processes.size == 1:
        return
    bucket: list[Tensor] = []
    for grad in grads:
        bucket.append(grad)
        if sum(grad.nbytes for grad in bucket) >= BUCKET_BYTES:
            _sum_bucket(bucket, processes)
            bucket = []
    _sum_bucket(bucket, processes)


def _sum_bucket(grads: list[Tensor], processes: Processes) -> None:
    if not grads:
        return
    flat = processes.sum(torch.cat([grad.flatten() for grad in grads]))
    parts = flat.split([grad.numel() for grad in grads])
    torch._foreach_copy_(grads, [part.view_as(grad) for part, grad in zip(parts, grads, strict=True)])


def full_state(stage: nn.Module, processes: Processes) -> dict[str, Tensor]:
    """The stage's state with whole tensors on the CPU, put together one tensor at a time; {} but on the main process."""
    state = {}
    for name, tensor in stage.state_dict().items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if processes.is_main:
            state[name] = whole.detach().cpu().clone()
    return state
