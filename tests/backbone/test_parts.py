"""Normalization, rotary positions, masks and the cache, each against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from llada_uni.backbone import KeyValueCache
from llada_uni.backbone.masks import block_causal, block_causal_square, two_stream
from llada_uni.backbone.norm import rms_norm, rms_norm_plain
from llada_uni.backbone.rope import apply_rotary, rotary_tables
from tests.backbone.helpers import small_config


@pytest.mark.parametrize("weight_shape", [(6,), (3, 6)])
def test_norm_equals_its_definition_with_gradients(weight_shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 5, 3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(weight_shape, generator=generator, dtype=torch.float64, requires_grad=True)
    assert (rms_norm(x, weight, 1e-6) - rms_norm_plain(x, weight, 1e-6)).abs().max() < 1e-12
    assert torch.autograd.gradcheck(lambda a, b: rms_norm(a, b, 1e-6), (x, weight))


def test_norm_of_half_precision_keeps_its_dtype():
    x = torch.full((2, 8), 300.0, dtype=torch.float16)  # squares overflow half precision
    out = rms_norm(x, torch.ones(8, dtype=torch.float16), 1e-6)
    assert out.dtype == torch.float16 and torch.allclose(out.float(), torch.ones(2, 8), atol=1e-3)


def test_rotary_turns_the_first_features_by_the_angle():
    heads = torch.randn(1, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    tables = rotary_tables(torch.tensor([[0, 1, 7]]), 4, 100.0, torch.float32)
    turned = apply_rotary(heads, tables)
    assert torch.equal(turned[..., 4:], heads[..., 4:])
    assert torch.allclose(turned[:, 0], heads[:, 0])
    for token, position in enumerate((0, 1, 7)):
        for i in range(2):
            angle = position * 100.0 ** (-2 * i / 4)
            a, b = heads[0, token, :, i], heads[0, token, :, i + 2]
            expected = a * math.cos(angle) - b * math.sin(angle)
            assert torch.allclose(turned[0, token, :, i], expected, atol=1e-5)
            expected = b * math.cos(angle) + a * math.sin(angle)
            assert torch.allclose(turned[0, token, :, i + 2], expected, atol=1e-5)


def test_block_causal_by_definition():
    mask = block_causal_square(10, 4)[0, 0]
    for q in range(10):
        for k in range(10):
            assert mask[q, k] == (k // 4 <= q // 4)


def test_blocks_keep_their_borders_below_zero():
    positions = torch.arange(-5, 4)
    mask = block_causal(positions, positions, 4)
    for i, q in enumerate(range(-5, 4)):
        for j, k in enumerate(range(-5, 4)):
            assert mask[i, j] == (math.floor(k / 4) <= math.floor(q / 4))


def test_two_streams_by_definition():
    positions = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2])
    segments = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1])
    mask = two_stream(positions, 2, segments)
    length = len(positions)
    for q in range(2 * length):
        for k in range(2 * length):
            noised_q, noised_k = q < length, k < length
            i, j = q % length, k % length
            together = segments[i] == segments[j]
            block_q, block_k = positions[i] // 2, positions[j] // 2
            if noised_q:
                expected = block_k == block_q if noised_k else block_k < block_q
            else:
                expected = (not noised_k) and block_k <= block_q
            assert mask[q, k] == bool(together and expected), (q, k)


def test_cache_appends_advances_and_truncates():
    cache = KeyValueCache(small_config(), batch=1, capacity=4)
    first = torch.ones(1, 2, 3, 8)
    for layer in range(2):
        keys, _ = cache.append(layer, first, first * 2)
        assert keys.shape == (1, 2, 3, 8)
    cache.advance(3)
    cache.truncate(1)
    keys, values = cache.append(0, first * 5, first * 6)
    assert keys[0, 0, :, 0].tolist() == [1, 5, 5, 5] and values[0, 0, :, 0].tolist() == [2, 6, 6, 6]
    with pytest.raises(ValueError, match="capacity of 4"):
        cache.append(0, torch.ones(1, 2, 4, 8), torch.ones(1, 2, 4, 8))
    with pytest.raises(ValueError, match="cannot keep 2"):
        cache.truncate(2)
