"""Attention of packed sequences and whole layers in compiled calls equal their definitions; where they must not be taken."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch

from llada_uni.backbone import Backbone, calibration, whole_layer
from llada_uni.backbone.cache import KeyValueCache
from llada_uni.backbone.cached_attention import PackedCache, Span
from llada_uni.backbone.native import products
from llada_uni.config import BackboneConfig
from tests.backbone.helpers import small_config

pytestmark = pytest.mark.skipif(not products.available(), reason="no compiler")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


SEQUENCES = ((0, 40, (32, 40)), (128, 32, (32,)), (37, 5, (5,)), (96, 64, (32, 64)))  # known, new, ends of blocks


def spans(config: BackboneConfig, sequences=SEQUENCES) -> list[Span]:
    found, at = [], 0
    for known, new, ends in sequences:
        cache = KeyValueCache(config, 1, known + new + 3)
        draw = torch.Generator().manual_seed(known)
        cache.keys.normal_(generator=draw)
        cache.values.normal_(generator=draw)
        cache.length = known
        found.append(Span(cache, at, at + new, tuple(at + end for end in ends)))
        at += new
    return found


@pytest.mark.parametrize(("heads", "groups", "width"), [(8, 2, 64), (9, 3, 32), (4, 1, 128), (6, 6, 16), (3, 1, 48)])
def test_attention_equals_torch_and_fills_the_caches(heads, groups, width):
    config = small_config(num_attention_heads=heads, num_key_value_heads=groups, head_dim=width)
    tokens = sum(new for _, new, _ in SEQUENCES)
    fused = torch.randn(1, tokens, heads + 2 * groups, width, generator=torch.Generator().manual_seed(1)) * 2
    parts = [part.transpose(1, 2) for part in fused.split((heads, groups, groups), 2)]
    ours, theirs = PackedCache(spans(config)), PackedCache(spans(config))
    with calibration.using("native"):
        assert ours.is_native(heads, groups, width)
        found = ours.attend(1, *parts)
    with calibration.using("loop"):
        truth = theirs.attend(1, *parts)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=3e-5)
    for one, other in zip(ours.spans, theirs.spans, strict=True):
        end = one.cache.length + one.stop - one.start
        assert torch.equal(one.cache.keys[1, :, :, :end], other.cache.keys[1, :, :, :end])
        assert torch.equal(one.cache.values[1, :, :, :end], other.cache.values[1, :, :, :end])
    for number, span in enumerate(spans(config)):  # a sequence alone: the same bits
        alone = PackedCache([Span(span.cache, 0, span.stop - span.start, tuple(end - span.start for end in span.ends))])
        with calibration.using("native"):
            mixed = alone.attend(1, *(part[:, :, span.start : span.stop] for part in parts))
        assert torch.equal(mixed, found[:, :, span.start : span.stop]), number


@pytest.mark.parametrize("threads", [1, 2])
def test_a_whole_layer_is_its_steps_to_the_bit(monkeypatch, threads):
    model = Backbone(small_config(head_dim=32), generator=torch.Generator().manual_seed(3)).eval()
    ids = torch.arange(45)[None] % model.config.vocab_size
    places = torch.cat([torch.arange(40), torch.arange(5)])[None]
    before, taken = torch.get_num_threads(), []
    real = whole_layer.compute
    torch.set_num_threads(threads)

    def run() -> torch.Tensor:
        sequences = spans(model.config, ((0, 40, (32, 40)), (0, 5, (5,))))
        return model.hidden(ids, places, None, PackedCache(sequences))

    try:
        with calibration.using("native"):
            monkeypatch.setattr(whole_layer, "compute", lambda *given: taken.append(real(*given)) or taken[-1])
            found = run()
            monkeypatch.setattr(whole_layer, "compute", lambda *given: None)
            truth = run()
    finally:
        torch.set_num_threads(before)
    assert len(taken) == model.config.num_hidden_layers and all(made is not None for made in taken)
    assert torch.equal(found, truth)


def test_a_layer_that_is_out_of_the_ordinary_is_computed_step_by_step():
    model = Backbone(small_config(head_dim=32), generator=torch.Generator().manual_seed(3)).eval()
    layer = model.model.layers[1]
    x, tables = (
        torch.randn(1, 5, model.config.hidden_size),
        tuple(torch.ones(1, 5, 1, model.config.rotary_dim) for _ in range(2)),
    )

    def taken(x: torch.Tensor = x) -> bool:
        return whole_layer.compute(layer, x, tables, PackedCache(spans(model.config, ((0, 5, (5,)),)))) is not None

    with calibration.using("loop"):
        assert not taken()
    with calibration.using("native"):
        assert taken() and not taken(x.bfloat16())
        hook = layer.mlp.gate.register_forward_hook(lambda *_: None)
        assert not taken()
        hook.remove()
        layer.mlp.experts.path = "plain"
        assert not taken()
        layer.mlp.experts.path = "grouped"
        with torch.inference_mode(False), torch.enable_grad():
            assert not taken(x.clone())
        layer.mlp.gate.forward = type(layer.mlp.gate).forward.__get__(layer.mlp.gate)  # as accelerate's hooks do
        assert not taken()
        del layer.mlp.gate.forward
        assert taken()
        own = layer.mlp.experts
        for part in (layer.mlp, layer):  # quantized experts, say, and networks and attentions of other kinds
            name = "experts" if part is layer.mlp else "attention"
            before = getattr(part, name)
            setattr(part, name, torch.nn.Identity())
            assert not taken()
            setattr(part, name, before)
        assert layer.mlp.experts is own and taken()
        layer.mlp.shared_experts.up_proj = torch.nn.Linear(model.config.hidden_size, 8)
        assert not taken()


def _changes():
    """What may happen to a layer between two steps, after which its weights or sizes are others."""

    def scaled(weight: torch.nn.Parameter) -> None:
        weight.mul_(1.5)

    def elsewhere(weight: torch.nn.Parameter) -> None:
        weight.data = weight * 1.5

    yield "a weight in place", lambda layer: scaled(layer.mlp.experts.up_proj)
    yield "a norm of queries in place", lambda layer: scaled(layer.attention.query_layernorm.weight)
    yield "a weight moved", lambda layer: elsewhere(layer.mlp.shared_experts.down_proj.weight)
    yield (
        "a weight replaced",
        lambda layer: setattr(layer.attention.dense, "weight", torch.nn.Parameter(layer.attention.dense.weight * 2)),
    )
    yield "the bias of the choice", lambda layer: setattr(layer.mlp.gate, "expert_bias", torch.arange(8.0))
    yield "experts a token", lambda layer: setattr(layer.mlp.gate, "top_k", 1)
    yield "a scale", lambda layer: setattr(layer.mlp.gate, "scaling", 0.3)
    yield "a part replaced", lambda layer: setattr(layer.mlp, "experts", _other_experts(layer))


def _other_experts(layer):
    other = Backbone(small_config(head_dim=32), generator=torch.Generator().manual_seed(9)).eval()
    return other.model.layers[1].mlp.experts


def _layer():
    with torch.inference_mode(False):
        return Backbone(small_config(head_dim=32), generator=torch.Generator().manual_seed(3)).eval().model.layers[1]


def _run(layer, compute=None) -> torch.Tensor | None:
    """One step of five tokens; compute: in place of the layer's forward."""
    config = small_config(head_dim=32)
    x = torch.randn(1, 5, config.hidden_size, generator=torch.Generator().manual_seed(1))
    tables = tuple(torch.full((1, 5, 1, config.rotary_dim), 0.7) for _ in range(2))
    cache = PackedCache(spans(config, ((0, 5, (5,)),)))
    return layer(x, tables, None, cache) if compute is None else compute(layer, x, tables, cache)


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in _changes()])
def test_what_changes_between_steps_counts(monkeypatch, change):
    layer = _layer()
    with calibration.using("native"), torch.inference_mode(False), torch.no_grad():
        before = _run(layer)
        change(layer)
        after = _run(layer)
        assert torch.equal(_run(layer, whole_layer.compute), after)
        monkeypatch.setattr(whole_layer, "compute", lambda *given: None)
        truth = _run(layer)
    assert torch.equal(after, truth) and not torch.equal(after, before)


def test_a_copy_of_a_layer_has_weights_of_its_own_and_a_forgotten_one_none():
    layer = _layer()
    with calibration.using("native"), torch.inference_mode(False), torch.no_grad():
        before = _run(layer)
        other = copy.deepcopy(layer)
        other.attention.dense.weight.mul_(2)
        assert torch.equal(_run(layer), before) and not torch.equal(_run(other), before)
    gone = weakref.ref(other.mlp.experts.up_proj)
    del other
    gc.collect()
    assert gone() is None
