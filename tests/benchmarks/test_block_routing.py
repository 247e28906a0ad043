"""A limited layer reads at most so many experts, and the bytes are those of the experts it reads."""

from __future__ import annotations

from benchmarks.block_routing import released_layer
from tests.backbone.helpers import small_config


def test_the_rows_of_a_small_layer():
    config = small_config(num_experts=16, num_hidden_layers=3)
    whole, limited = released_layer([3], 1, config)
    assert limited.more["experts"] == 3 < whole.more["experts"] == whole.more["of"]
    each = 3 * config.hidden_size * config.moe_intermediate_size * 2
    layers = sum(not config.is_dense(i) for i in range(3))
    assert limited.more["GB a step"] == 3 * each * layers / 1e9
