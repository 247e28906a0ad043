"""The configuration: released fields, nothing lost, clear refusals."""

from __future__ import annotations

import json

import pytest

from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from tests.backbone.helpers import small_config


def test_reading_and_writing_loses_nothing(golden):
    content = json.loads((golden / "backbone" / "config.json").read_text())
    config = BackboneConfig.from_json(golden / "backbone" / "config.json")
    assert (
        config.hidden_size == 64 and config.rotary_dim == 8 and config.is_dense(0) and not config.is_dense(1)
    )
    assert config.to_json() == content
    assert BackboneConfig.from_json(config.to_json()) == config
    assert BackboneConfig.from_json(golden / "backbone") == config


def test_the_released_preset_round_trips():
    config = BackboneConfig.released_16b()
    assert BackboneConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert (config.vocab_size, config.image_token_offset, config.rotary_dim) == (173568, 157184, 64)


def test_a_missing_field_is_named():
    content = small_config().to_json()
    del content["num_experts"]
    with pytest.raises(UserError, match="num_experts is missing"):
        BackboneConfig.from_json(content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 0),
        ("num_hidden_layers", "three"),
        ("vocab_size", True),
        ("num_key_value_heads", 3),
        ("n_group", 3),
        ("topk_group", 5),
        ("num_experts_per_tok", 5),
        ("hidden_act", "gelu"),
        ("score_function", "softmax"),
        ("use_bias", True),
        ("tie_word_embeddings", True),
        ("partial_rotary_factor", 0.4),
        ("rope_scaling", {"type": "linear"}),
    ],
)
def test_a_network_we_do_not_compute_is_refused(name, value):
    with pytest.raises(UserError) as caught:
        BackboneConfig.from_json({**small_config().to_json(), name: value})
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        BackboneConfig.from_json(tmp_path / "none.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        BackboneConfig.from_json(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="JSON object"):
        BackboneConfig.from_json(tmp_path)
