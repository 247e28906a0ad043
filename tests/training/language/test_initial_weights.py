"""A text-only checkpoint gets rows for image tokens: old rows keep every bit, new ones are fresh."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.load import save_backbone
from llada_uni.errors import UserError
from llada_uni.training.language.initial_weights import fill_backbone, read_config
from tests.backbone.helpers import small_config


@pytest.fixture
def text_only(tmp_path):
    """A checkpoint of 24 tokens, without any word of images in its config."""
    model = Backbone(small_config(vocab_size=24), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for router in model.routers():
            router.expert_bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(6))
    save_backbone(model, tmp_path / "text")
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    del config["image_token_offset"]
    (tmp_path / "text" / "config.json").write_text(json.dumps(config))
    return tmp_path / "text", model


def _filled(config, init, seed=0) -> Backbone:
    with torch.device("meta"):
        model = Backbone(config)
    model.to_empty(device="cpu")
    fill_backbone(model, init, seed)
    return model


def test_a_text_only_checkpoint_is_extended(text_only):
    folder, source = text_only
    config = read_config(folder, vocab_size=5000, image_token_offset=30)
    assert config == dataclasses.replace(source.config, vocab_size=5000, image_token_offset=30, extra=config.extra)
    state, before = _filled(config, folder).state_dict(), source.state_dict()
    for name, value in before.items():
        assert torch.equal(state[name][: len(value)], value), name
    fresh = [state[name][24:] for name in ("model.word_embeddings.weight", "lm_head.weight")]
    for rows in fresh:
        assert len(rows) == 4976 and float(rows.std()) == pytest.approx(config.initializer_range, rel=0.03)
    assert not torch.equal(*fresh)
    again = _filled(config, folder, seed=0).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    assert not torch.equal(_filled(config, folder, seed=1).lm_head.weight[24:], fresh[1])


@pytest.mark.parametrize("layout", ["released", "stacked"])
def test_a_model_directory_is_read_in_either_layout(tmp_path, layout):
    source = Backbone(small_config(), generator=torch.Generator().manual_seed(5))
    save_backbone(source, tmp_path, layout=layout, dtype=torch.float16)
    state = _filled(read_config(tmp_path, 40, 24), tmp_path).state_dict()
    for name, value in source.state_dict().items():
        assert torch.allclose(state[name], value, atol=1e-3) and state[name].dtype == torch.float32


def test_a_checkpoint_that_does_not_fit_is_refused(text_only, tmp_path):
    folder, _ = text_only
    with pytest.raises(UserError, match="24 tokens; the data has only 20"):
        read_config(folder, 20, 10)
    save_backbone(Backbone(small_config()), tmp_path / "model")
    with pytest.raises(UserError, match="start at 24; the data has 30"):
        read_config(tmp_path / "model", 80, 30)
    with pytest.raises(UserError, match="40 tokens; the network to be trained has only 30"):
        _filled(small_config(vocab_size=30), tmp_path / "model")
    with pytest.raises(UserError, match="gate_proj"):
        _filled(dataclasses.replace(small_config(), moe_intermediate_size=6), tmp_path / "model")
