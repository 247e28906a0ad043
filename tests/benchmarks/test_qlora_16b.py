"""The QLoRA benchmark on a very small network: every phase runs and gives its numbers."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.qlora_16b import measure
from llada_uni.config import BackboneConfig

SIZES = {
    "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64, "num_experts": 8,
    "num_experts_per_tok": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1024,
    "image_token_offset": 512,
}  # fmt: skip


@pytest.mark.parametrize("format", ["int4"])
def test_every_phase_runs(tmp_path, format):
    config = dataclasses.replace(BackboneConfig.released_16b(), **SIZES)
    memory, step, loss, checkpoint = measure(tmp_path, config, format, rank=4, steps=5)
    assert 0.1 < memory.ours < 3 and step.ours > 0 and checkpoint.ours > 0
    assert len(loss.more["losses"]) == 4 and 0 < loss.ours < 50 and 0 < loss.theirs < 50
