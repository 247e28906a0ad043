"""The evaluation in two parts equals the library's forward, bit for bit, for whole and padded sequences."""

from __future__ import annotations

import pytest
import torch

from llada_uni.decoder.model import load_transformer
from llada_uni.decoder.transformer import context_of, from_patches, to_patches, velocity


@pytest.fixture(scope="module")
def model(golden):
    return load_transformer(golden / "decoder")


def _inputs(model, batch, rows, columns):
    draw = torch.Generator().manual_seed(rows * columns + batch)
    patch = model.config.all_patch_size[0]
    state = torch.randn(batch, model.config.in_channels, 1, rows * patch, columns * patch, generator=draw)
    condition = torch.randn(batch, rows * columns, model.config.cap_feat_dim, generator=draw)
    return state, torch.rand(batch, generator=draw), condition


# 64 places need no padding; 24 and 60 are filled up to 32 and 64 with pad tokens.
@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 8, 8), (3, 8, 8), (2, 4, 6), (2, 10, 6)])
def test_equal_to_the_forward_of_the_library(model, batch, rows, columns):
    state, t, condition = _inputs(model, batch, rows, columns)
    with torch.no_grad():
        expected = model(
            list(state), t, list(condition), return_dict=False, patch_size=model.config.all_patch_size[0], f_patch_size=1
        )[0]
        found = velocity(model, state, t, context_of(model, condition, tuple(state.shape[1:])))
    assert torch.equal(found, torch.stack(list(expected)))


def test_one_context_serves_every_time(model):
    state, _, condition = _inputs(model, 2, 8, 8)
    with torch.no_grad():
        kept = context_of(model, condition, tuple(state.shape[1:]))
        for t in (torch.tensor([0.0, 0.3]), torch.tensor([0.9, 1.0])):
            fresh = context_of(model, condition, tuple(state.shape[1:]))
            assert torch.equal(velocity(model, state, t, kept), velocity(model, state, t, fresh))


def test_a_repeated_context_is_the_same_pictures_again(model):
    state, t, condition = _inputs(model, 2, 8, 8)
    with torch.no_grad():
        context = context_of(model, condition, tuple(state.shape[1:]))
        once = velocity(model, state, t, context)
        twice = velocity(model, state.repeat(2, 1, 1, 1, 1), t.repeat(2), context.repeat(2))
    torch.testing.assert_close(twice, once.repeat(2, 1, 1, 1, 1), atol=1e-5, rtol=0)


def test_patches_go_both_ways():
    state = torch.arange(2 * 3 * 2 * 4 * 6.0).view(2, 3, 2, 4, 6)
    patches = to_patches(state, 2, 2)
    assert patches.shape == (2, 6, 24)
    # The first patch: frame, row, column, then channel.
    assert patches[0, 0, :6].tolist() == [state[0, c, 0, 0, x].item() for x in (0, 1) for c in range(3)]
    assert torch.equal(from_patches(patches, (3, 2, 4, 6), 2, 2), state)
