"""Muon against its definition by singular values; AdamW's weights move as under AdamW; the state survives a stop."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from llada_uni.errors import UserError
from llada_uni.training.loop.muon import is_hidden, orthogonalized, shared_out
from llada_uni.training.loop.optimizer import make_optimizer, optimizer_state
from llada_uni.training.loop.options import LoopOptions


def weights_of(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layer.query.weight": (8, 12), "layer.dense.weight": (8, 12), "mlp.down.weight": (20, 6), "norm.weight": (12,)}
    shapes |= {"word_embeddings.weight": (30, 12), "mlp.gate.weight": (4, 12), "mlp.experts.up": (3, 5, 12)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def give_gradients(weights: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=generator)


SCALE = 0.3
OPTIONS = LoopOptions(optimizer="muon", muon_scale=SCALE, lr=0.01, weight_decay=0.1)


@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 20, 6), (1, 7, 7)])
def test_the_nearest_orthogonal_matrix(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = orthogonalized(given)
    assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.35
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(found.flatten(1), (u @ v).flatten(1)).min() > 0.95


@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 20, 6)])
def test_in_bfloat16_it_is_nearly_the_same(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    exact, low = orthogonalized(given), orthogonalized(given, low=True)
    assert low.dtype == torch.float32 and not torch.equal(low, exact)
    assert torch.nn.functional.cosine_similarity(low.flatten(1), exact.flatten(1)).min() > 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_its_precision_is_the_runs(precision):
    weights = weights_of()
    optimizer = make_optimizer(weights, LoopOptions(optimizer="muon", lr=1.0, weight_decay=0.0, precision=precision))
    give_gradients(weights, 1)
    before = weights["layer.query.weight"].detach().clone()
    optimizer.step()
    step = (before - weights["layer.query.weight"].detach()) / (0.2 * 12**0.5)
    assert torch.allclose(step.bfloat16().float(), step, atol=1e-6) is (precision == "bfloat16")


def test_which_weights_it_takes():
    assert [name for name, weight in weights_of().items() if is_hidden(name, weight)] == [
        "layer.query.weight", "layer.dense.weight", "mlp.down.weight", "mlp.experts.up",
    ]  # fmt: skip


def test_a_step_by_its_definition_beside_adamw():
    weights, before, plain = weights_of(), weights_of(), weights_of()
    optimizer, adamw = make_optimizer(weights, OPTIONS), make_optimizer(plain, LoopOptions(lr=0.01, weight_decay=0.1))
    give_gradients(weights, 1)
    give_gradients(plain, 1)
    optimizer.step()
    adamw.step()
    for name, weight in weights.items():
        if not is_hidden(name, weight):
            assert torch.equal(weight, plain[name]), name
            continue
        beta = OPTIONS.betas[0]
        moved = weight.grad * (1 - beta) + beta * (1 - beta) * weight.grad
        step = orthogonalized(moved.view(-1, *weight.shape[-2:])).view_as(weight) * SCALE * max(weight.shape[-2:]) ** 0.5
        torch.testing.assert_close(weight.data, before[name] * (1 - 0.01 * 0.1) - 0.01 * step)
        assert 0.5 * SCALE < step.square().mean().sqrt() < 1.5 * SCALE


def test_its_state_goes_on():
    one, two = weights_of(), weights_of()
    first, second = make_optimizer(one, OPTIONS), make_optimizer(two, OPTIONS)
    for seed in (1, 2):
        give_gradients(one, seed)
        first.step()
    give_gradients(two, 1)
    second.step()
    fresh = make_optimizer(two, OPTIONS)
    for name, state in optimizer_state(second, two).items():
        for key, value in state.items():
            optimizer_state(fresh, two)[name][key].copy_(value)
    give_gradients(two, 2)
    fresh.step()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_optimizer_is_refused():
    with pytest.raises(UserError, match="adamw, muon"):
        LoopOptions(optimizer="sgd")


def _shared_out(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    matrices = torch.load(f"{folder}/given.pt")
    torch.save([shared_out(stack) for stack in matrices], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_share_the_work_and_agree_with_one(tmp_path):
    generator = torch.Generator().manual_seed(2)
    matrices = [torch.randn(shape, generator=generator) for shape in ((5, 8, 12), (1, 20, 6))]
    torch.save(matrices, tmp_path / "given.pt")
    torch.multiprocessing.spawn(_shared_out, (str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        for found, given in zip(torch.load(tmp_path / f"{rank}.pt"), matrices, strict=True):
            torch.testing.assert_close(found, orthogonalized(given))
