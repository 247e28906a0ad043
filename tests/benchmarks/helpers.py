"""A tiny backbone in the place of the benchmarks' models."""

from __future__ import annotations

import pytest

from benchmarks import common
from llada_uni.backbone import Backbone
from tests.backbone.helpers import small_config


def tiny_backbone(experts: int = 8, top_k: int = 2, context: int = 4096) -> Backbone:
    config = small_config(
        num_experts=experts,
        num_experts_per_tok=top_k,
        max_position_embeddings=context,
        vocab_size=64,
        image_token_offset=32,
        n_group=1,
        topk_group=1,
        initializer_range=0.6,
    )
    return Backbone(config).eval()


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Makes the benchmarks use tiny backbones."""
    monkeypatch.setattr(common, "middle_backbone", tiny_backbone)
    monkeypatch.setattr(common, "shipped_backbone", tiny_backbone)
