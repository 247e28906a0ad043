"""LoRA: nothing changes before training, gradients reach only the adapters, merged equals unmerged, files round-trip."""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.training.language.initial_weights import fill_backbone
from llada_uni.training.language.lora import LoraOptions, add_lora, load_adapter, merge_lora, save_adapter, start_adapters
from llada_uni.training.loop.sharded_load import plain_tensors
from tests.backbone.helpers import small_config

IDS = torch.arange(18).view(2, 9)
OPTIONS = LoraOptions(rank=3, alpha=6)
WHOLE = LoraOptions(rank=3, alpha=6, embeddings=True, head=True)


def adapted(options: LoraOptions = OPTIONS, experts: str = "grouped"):
    """A small backbone whose adapters do something, as after training."""
    model = add_lora(Backbone(small_config(), experts), options, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.1, generator=generator)
    return model


def trained_names(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_fresh_adapters_change_nothing_and_are_given_by_the_seed():
    plain = Backbone(small_config())
    expected = plain(IDS)
    one, two, other = (add_lora(Backbone(small_config()), LoraOptions(rank=2), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one(IDS), expected)
    first = sorted(trained_names(one))[0]
    values = [model.state_dict()[first] for model in (one, two, other)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_the_adapted_model_answers_like_a_backbone():
    model = adapted()
    states = model.hidden(IDS)
    torch.testing.assert_close(model.logits(states), model(IDS))
    at = torch.zeros_like(IDS, dtype=torch.bool)
    at[0, 3] = True
    torch.testing.assert_close(model(IDS, logits_at=at), model(IDS)[0, 3:4])
    assert model.config == small_config() and len(model.routers()) == 1
    model.train()
    model.reset_load()
    model(IDS)
    assert model.routers()[0].load.sum() == IDS.numel() * 2


@pytest.mark.parametrize("path", ["grouped", "plain"])
def test_gradients_reach_every_adapter_and_nothing_else(path):
    model = adapted(experts=path).train()
    model(IDS).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == ("lora_" in name), name


def test_grouped_and_plain_experts_agree_with_adapters():
    torch.testing.assert_close(adapted(experts="grouped")(IDS), adapted(experts="plain")(IDS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("attention", "experts"), [(True, True), (True, False), (False, True)])
def test_what_is_adapted(attention, experts):
    names = trained_names(adapted(LoraOptions(rank=2, attention=attention, experts=experts)))
    assert any("attention" in name for name in names) == attention
    assert any("mlp.experts" in name for name in names) == experts
    # two layers with two projections each; one layer of experts with three stacks; A and B of each
    assert len(names) == 2 * (4 * attention + 3 * experts)


def test_vectors_of_the_vocabulary_are_trained_whole_where_asked():
    for embeddings, head in ((True, False), (False, True), (True, True)):
        names = trained_names(adapted(LoraOptions(rank=2, experts=False, embeddings=embeddings, head=head)))
        assert any("word_embeddings" in name for name in names) == embeddings
        assert any("lm_head" in name for name in names) == head
        assert len(names) == 8 + embeddings + head
    fresh = add_lora(Backbone(small_config()), WHOLE)
    assert torch.equal(fresh(IDS), Backbone(small_config())(IDS))
    fresh(IDS).square().mean().backward()
    assert all(parameter.grad is not None for parameter in fresh.parameters() if parameter.requires_grad)


def test_adapters_begin_the_same_wherever_they_are_built():
    """Whole, or on the meta device and filled later, as sharded training does (low_memory)."""
    whole = add_lora(Backbone(small_config()), WHOLE, seed=3)
    with torch.device("meta"):
        later = add_lora(Backbone(small_config()), WHOLE, seed=3)
    assert all(parameter.is_meta for parameter in later.parameters())
    later.to_empty(device="cpu")
    fill_backbone(later.get_base_model(), None)
    start_adapters(later, seed=3)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, later.state_dict()[name]), name
    plain = plain_tensors(later.get_base_model())
    assert {name for name in Backbone(small_config()).state_dict()} <= set(plain)


@pytest.mark.parametrize("options", [OPTIONS, WHOLE])
def test_merged_equals_unmerged(options):
    model = adapted(options)
    expected = model(IDS).detach()
    assert (expected - Backbone(small_config())(IDS)).abs().max() > 0.1
    merged = merge_lora(model)
    assert type(merged) is Backbone and set(merged.state_dict()) == set(Backbone(small_config()).state_dict())
    torch.testing.assert_close(merged(IDS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [OPTIONS, WHOLE])
def test_an_adapter_round_trips_through_its_folder(tmp_path, options):
    model = adapted(options)
    save_adapter(model, tmp_path / "adapter")
    save_adapter(model, tmp_path / "adapter")  # a newer one takes the place of the older
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {f.name for f in (tmp_path / "adapter").iterdir()}
    assert [f.name for f in tmp_path.iterdir()] == ["adapter"]
    again = load_adapter(Backbone(small_config()), tmp_path / "adapter")
    assert torch.equal(again(IDS), model(IDS)) and not trained_names(again)
    assert trained_names(load_adapter(Backbone(small_config()), tmp_path / "adapter", trainable=True))


def test_what_a_user_can_get_wrong_is_one_line(tmp_path):
    (tmp_path / "mine.txt").write_text("notes")
    save_adapter(adapted(), tmp_path / "adapter")
    wider = Backbone(small_config(hidden_size=24))
    for mistake in (
        lambda: load_adapter(Backbone(small_config()), tmp_path / "none"),
        lambda: load_adapter(wider, tmp_path / "adapter"),
        lambda: save_adapter(adapted(), tmp_path),
        lambda: LoraOptions(rank=0),
        lambda: LoraOptions(dropout=1.0),
        lambda: LoraOptions(attention=False, experts=False),
        lambda: LoraOptions(dropout=0.1),
    ):
        with pytest.raises(UserError) as caught:
            mistake()
        assert "\n" not in str(caught.value)
    assert (tmp_path / "mine.txt").read_text() == "notes"
