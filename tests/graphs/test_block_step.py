"""The step as a function of tensors against the backbone with its own cache and its usual experts."""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.graphs.block_step import BlockStep, block_case, dense_experts
from tests.backbone.helpers import small_config


@pytest.mark.parametrize(("block", "capacity", "length"), [(8, 32, 0), (8, 32, 13), (4, 16, 16)])
def test_a_step_equals_the_usual_path(block, capacity, length):
    backbone = Backbone(small_config()).eval().requires_grad_(False)
    inputs, expected = block_case(backbone, block, capacity, length)
    assert inputs.seen.sum() == length + block
    with torch.no_grad(), dense_experts(backbone):
        found = BlockStep(backbone)(*inputs)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def test_what_is_not_seen_does_not_matter():
    """Rubbish behind the committed positions, and in the rest of a block that is not full."""
    backbone = Backbone(small_config()).eval().requires_grad_(False)
    inputs, _ = block_case(backbone, 8, 32, 13)
    seen = inputs.seen.clone()
    seen[0, 32 + 5 :] = False
    with torch.no_grad():
        one = BlockStep(backbone)(*inputs._replace(seen=seen))[0][:, :5]
        ids, keys = inputs.ids.clone(), inputs.keys.clone()
        ids[0, 5:], keys[..., 13:, :] = 1, 100.0
        other = BlockStep(backbone)(*inputs._replace(seen=seen, ids=ids, keys=keys))[0][:, :5]
    assert torch.allclose(one, other, atol=1e-6)


def test_the_usual_experts_are_back_afterwards():
    backbone = Backbone(small_config())
    with dense_experts(backbone):
        assert {layer.mlp.experts.path for layer in backbone.model.layers if hasattr(layer.mlp, "experts")} == {"dense"}
    assert {layer.mlp.experts.path for layer in backbone.model.layers if hasattr(layer.mlp, "experts")} == {"grouped"}
