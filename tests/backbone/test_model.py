"""The backbone against recorded numbers, and the promises of its interface."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from llada_uni.backbone import Backbone, KeyValueCache
from llada_uni.backbone.masks import block_causal_square
from llada_uni.config import BackboneConfig
from tests.backbone.helpers import recorded_backbone, small_config


@pytest.fixture(scope="module")
def recorded(golden):
    return load_file(golden / "backbone" / "forward.safetensors")


@pytest.mark.parametrize("experts", ["grouped", "plain"])
@pytest.mark.parametrize(("name", "block"), [("full", None), ("block8", 8), ("block4", 4)])
def test_logits_are_the_recorded_ones(golden, recorded, experts, name, block):
    model = recorded_backbone(golden / "backbone", experts)
    ids = recorded[f"logits.{name}.input_ids"]
    mask = None if block is None else block_causal_square(ids.shape[1], block)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask)
    assert logits.dtype == torch.float32
    assert (logits - recorded[f"logits.{name}.logits"]).abs().max() < 1e-4


def test_hidden_states_and_router_are_the_recorded_ones(golden, recorded):
    model = recorded_backbone(golden / "backbone")
    states, routings = [], []
    parts = [model.model.word_embeddings, *model.model.layers[:-1], model.model.norm]
    for part in parts:
        part.register_forward_hook(lambda _, __, out: states.append(out))
    for router in model.routers():
        router.register_forward_hook(lambda _, __, out: routings.append(out))
    ids = recorded["logits.block8.input_ids"][:1]
    with torch.no_grad():
        model(ids, attention_mask=block_causal_square(ids.shape[1], 8))
    for i, state in enumerate(states):
        assert (state - recorded[f"hidden.{i}"]).abs().max() < 1e-4, f"hidden state {i}"
    assert len(routings) == 2
    for i, routing in enumerate(routings):
        assert (routing.logits - recorded[f"router.{i}.logits"][0]).abs().max() < 1e-4
        assert torch.equal(routing.experts.sort(-1).values, recorded[f"router.{i}.topk"][0])


def test_both_expert_paths_give_the_same_logits_and_gradients():
    models = [Backbone(small_config(), path) for path in ("plain", "grouped")]
    ids = torch.randint(0, 40, (3, 12), generator=torch.Generator().manual_seed(1))
    for model in models:
        model(ids, attention_mask=block_causal_square(12, 4)).square().sum().backward()
    plain, grouped = (dict(model.named_parameters()) for model in models)
    for name in plain:
        scale = plain[name].grad.abs().max().clamp(min=1)
        assert (plain[name].grad - grouped[name].grad).abs().max() / scale < 1e-5, name
        assert grouped[name].grad.abs().max() > 0, f"{name} gets no gradient"


def test_a_cache_of_finished_blocks_changes_nothing():
    model = Backbone(small_config()).double().eval()
    ids = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = model(ids, attention_mask=block_causal_square(12, 4))
        cache = KeyValueCache(model.config, 2, 12, dtype=torch.float64)
        mask = block_causal_square(8, 4)
        pieces = [model(ids[:, :8], attention_mask=mask, cache=cache), model(ids[:, 8:], cache=cache)]
    assert cache.length == 12
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-12


def test_logits_only_where_wanted():
    model = Backbone(small_config()).eval()
    ids = torch.randint(0, 40, (2, 6), generator=torch.Generator().manual_seed(3))
    wanted = torch.tensor([[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1]], dtype=torch.bool)
    with torch.no_grad():
        every = model(ids)
        assert torch.allclose(model(ids, logits_at=wanted), every[wanted], atol=1e-6)
        places = torch.tensor([7, 2])
        assert torch.allclose(model(ids, logits_at=places), every.flatten(0, 1)[places], atol=1e-6)
        hidden = model.hidden(ids)
        assert torch.allclose(model.logits(hidden, slice(24, 40)), every[..., 24:40], atol=1e-6)
        assert torch.allclose(model.logits(hidden, torch.tensor([3, 1])), every[..., [3, 1]], atol=1e-6)


def test_logits_of_a_half_precision_model_are_float32():
    model = Backbone(small_config()).bfloat16().eval()
    with torch.no_grad():
        logits = model(torch.arange(8)[None])
    assert logits.dtype == torch.float32 and logits.isfinite().all()


def test_starting_values_come_from_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = Backbone(small_config()), Backbone(small_config())
    assert torch.equal(before, torch.get_rng_state())
    other = Backbone(small_config(), generator=torch.Generator().manual_seed(1))
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_released_size_builds_without_memory():
    with torch.device("meta"):
        model = Backbone(BackboneConfig.released_16b())
    count = sum(p.numel() for p in model.parameters())
    assert 15.5e9 < count < 17e9
    names = set(model.state_dict())
    assert "model.layers.19.mlp.gate.expert_bias" in names
    assert not any("load" in name.split(".")[-1] for name in names), "the load counter is no state"
