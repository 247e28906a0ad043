"""Operations are those that a network's sizes say, and a row of the log has them as a share of the machine's speed."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from llada_uni.backbone import Backbone
from llada_uni.training.language.operations import operations, weights_met
from llada_uni.training.loop.pace import counted, memory_gb, product_speed
from llada_uni.training.loop.ranks import Processes
from tests.backbone.helpers import small_config
from tests.training.helpers.runs import fit


def test_operations_are_counted_forward_and_backward():
    layer, x = nn.Linear(7, 11), torch.randn(5, 7, requires_grad=True)
    with counted(True) as found:
        layer(x).sum().backward()
    assert found.total == 3 * 2 * 5 * 7 * 11
    with counted(False) as nothing:
        layer(x)
    assert nothing.total == 0


def test_the_backbones_formula_is_what_is_counted():
    """But for attention's own products, which it leaves out."""
    sizes = {"hidden_size": 64, "moe_intermediate_size": 64, "intermediate_size": 128}
    config = small_config(**sizes, vocab_size=400, image_token_offset=300)
    model = Backbone(config).train()
    ids = torch.arange(2 * 16).view(2, 16)
    with counted(True) as found:
        model(ids).sum().backward()
    assert found.total == pytest.approx(operations(config, 32, 32, all_trained=True), rel=0.15)
    layers, head = weights_met(config)
    assert operations(config, 32, 0, all_trained=False) == 4 * 32 * layers and head == 64 * 400


def test_rows_tell_speed_and_memory(tmp_path):
    fit(Processes(), "line", tmp_path)
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < row["mfu"] < 1.5 and 0.05 < row["memory_gb"] < 100 and "operations_per_second" not in row
    assert product_speed("cpu", torch.float32) > 1e8 and memory_gb(torch.device("cpu")) > 0.05
