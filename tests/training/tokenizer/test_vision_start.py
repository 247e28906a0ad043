"""The mimetic start: attention begins near itself, and nothing of the exported layout changes."""

from __future__ import annotations

import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.image.batched import batched_features
from llada_uni.training.tokenizer.vision import VisionSizes, build_vision

SIZES = {"hidden_size": 48, "intermediate_size": 96, "num_heads": 3, "depth": 2, "patch_size": 4, "image_size": 32}


def built(start: str):
    torch.manual_seed(0)
    return build_vision(VisionSizes(**SIZES, start=start))


def attention_of(vision, block: int = 0) -> torch.Tensor:
    """Attention [heads, N, N] of a block on gray images: what positions alone make of it."""
    hidden = vision.blocks[block].norm1(vision.embeddings.position_embedding.weight)
    attention = vision.blocks[block].attn
    query, key, _ = attention.qkv(hidden).view(len(hidden), 3, attention.num_heads, -1).permute(1, 2, 0, 3)
    return torch.softmax(query @ key.transpose(1, 2) * attention.scaling, dim=-1)


@torch.no_grad()
def test_attention_begins_near_itself():
    grid = torch.stack(torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"), -1).view(64, 2).float()
    distance = torch.cdist(grid, grid)

    def reach(start: str) -> float:
        return float((attention_of(built(start)) * distance).sum(-1).mean())

    assert reach("normal") > 3.5  # everywhere: the mean distance of two positions of the grid is 4.1
    assert reach("mimetic") < 0.75 * reach("normal")


def test_the_network_and_its_config_are_the_same():
    one, other = built("normal"), built("mimetic")
    assert {name: p.shape for name, p in one.named_parameters()} == {name: p.shape for name, p in other.named_parameters()}
    assert "start" not in VisionSizes(start="mimetic").config()
    features = batched_features(other, torch.rand(2, 3, 32, 32) * 2 - 1)
    assert features.shape == (2, 64, 48) and bool(features.isfinite().all())


def test_an_unknown_start_is_refused():
    with pytest.raises(UserError, match=r"start is 'conv'; allowed: normal, mimetic"):
        VisionSizes(start="conv")
