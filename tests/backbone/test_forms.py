"""Every form of the products equals the definition, for a row alone and in company; one is chosen per shape."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llada_uni.backbone import Backbone, calibration, forms, speed
from llada_uni.backbone.moe import Router, Routing, SwiGLU, grouped_experts, plain_experts
from llada_uni.backbone.native import products
from llada_uni.backbone.norm import rms_norm, rms_norm_plain
from llada_uni.backbone.rope import apply_rotary, rotary_tables
from llada_uni.errors import UserError
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Settings
from tests.backbone.helpers import small_config

HERE = [form for form in forms.FORMS if form != "native" or products.available()]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


def layer(tokens: int, width: int = 72, inner: int = 40, experts: int = 8, top_k: int = 2, busy: int = 8):
    draw = torch.Generator().manual_seed(tokens + busy)
    x = torch.randn(tokens, width, generator=draw)
    chosen = torch.stack([torch.randperm(experts, generator=draw)[:top_k] % busy for _ in range(tokens)])
    share = torch.rand(tokens, top_k, generator=draw)
    shapes = ((inner, width), (inner, width), (width, inner))
    return x, Routing(share, chosen, share), [torch.randn(experts, *shape, generator=draw) * 0.1 for shape in shapes]


def distance(found: torch.Tensor, truth: torch.Tensor) -> float:
    return ((found.double() - truth.double()).norm() / truth.double().norm()).item()


@pytest.mark.parametrize("busy", [1, 3, 8])
@pytest.mark.parametrize("tokens", [1, 5, 33, 200])
@pytest.mark.parametrize("form", HERE)
def test_experts_equal_the_definition(form, tokens, busy):
    """Also with idle experts, uneven loads, and widths that no vector divides."""
    x, routing, matrices = layer(tokens, busy=busy)
    truth = plain_experts(
        x.double(), Routing(*(part.double() for part in routing[:1]), *routing[1:]), *(m.double() for m in matrices)
    )
    with calibration.using(form):
        assert distance(grouped_experts(x, routing, *matrices), truth) < 2e-6
        half = grouped_experts(x.bfloat16(), routing, *(m.bfloat16() for m in matrices))
    assert half.dtype == torch.bfloat16 and distance(half, truth) < 0.02  # torch: 0.0102


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (13, 37), (64, 128), (130, 515)])
@pytest.mark.parametrize("form", HERE)
def test_linear_equals_torch(form, outputs, inputs):
    draw = torch.Generator().manual_seed(outputs)
    weight = torch.randn(outputs, inputs, generator=draw)
    for rows in (1, 2, 3, 4, 5, 7, 32, 97):
        x = torch.randn(1, rows, inputs, generator=draw)
        truth = F.linear(x.double(), weight.double())
        with calibration.using(form):
            found = forms.linear(x, weight)
            half = forms.linear(x.bfloat16(), weight.bfloat16())
        assert found.shape == truth.shape and found.is_contiguous() and distance(found, truth) < 2e-6
        assert half.dtype == torch.bfloat16 and distance(half, truth) < 0.02


@pytest.mark.skipif("native" not in HERE, reason="no compiler")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_native_row_is_the_same_in_any_company(threads):
    """To the bit, and with any number of threads: what makes a batch give each request what it gets alone."""
    x, routing, matrices = layer(120, width=512, inner=192)
    weight = matrices[0][0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with calibration.using("native"):
            together, product = grouped_experts(x, routing, *matrices), forms.linear(x, weight)
            for row in (0, 17, 119):
                alone = Routing(*(part[row : row + 1] for part in routing))
                assert torch.equal(grouped_experts(x[row : row + 1], alone, *matrices)[0], together[row])
                assert torch.equal(forms.linear(x[row : row + 1], weight)[0], product[row])
            some = slice(40, 73)
            alone = Routing(*(part[some] for part in routing))
            assert torch.equal(grouped_experts(x[some], alone, *matrices), together[some])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("form", HERE)
def test_tokens_are_the_same_alone_in_a_batch_and_in_any_form(form):
    model = Backbone(small_config(), generator=torch.Generator().manual_seed(3)).eval()
    mask = model.config.image_token_offset - 1
    settings = Settings(mask_id=mask, block_length=8, steps=4, gen_length=16, allowed=range(mask), temperature=1.0)

    def requests() -> list[Request]:
        prompts = [list(range(1, 4 + i)) for i in range(16)]
        return [Request(p, settings, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(prompts)]

    with calibration.using("loop"):
        expected = [BatchEngine(model).run([request])[0].tokens for request in requests()]
    with calibration.using(form):
        together = [result.tokens for result in BatchEngine(model).run(requests())]
        alone = [BatchEngine(model).run([request])[0].tokens for request in requests()]
    assert together == alone == expected


def test_the_choice_depends_on_the_shape_and_is_made_once(monkeypatch):
    calibration.forget()
    measured = []
    real = calibration.measure
    monkeypatch.setattr(calibration, "measure", lambda ways: measured.append(list(ways)) or real(ways))
    for tokens in (1, 300, 4):
        x, routing, matrices = layer(tokens)
        grouped_experts(x, routing, *matrices)
        forms.linear(x, matrices[0][0])
    assert len(measured) == 2 and set(measured[0]) == set(HERE) and {"loop", "transposed"} <= set(measured[1])
    (experts, choice), (linear, _) = calibration.choices().items()
    assert experts[:2] == ("experts", (8, 40, 72)) and choice.form in HERE and set(choice.seconds) == set(HERE)
    assert linear[:2] == ("linear", (6, 72))


def test_noise_does_not_change_the_choice(monkeypatch):
    """The first way is kept unless another is clearly faster."""
    for seconds, chosen in (([0.0, 1.4, 1.4, 2.4], "first"), ([0.0, 1.6, 1.6, 2.6], "second")):
        clock = iter(seconds)
        monkeypatch.setattr(calibration, "REPEATS", 0)
        monkeypatch.setattr(calibration.time, "perf_counter", lambda clock=clock: next(clock))
        assert calibration.measure({"first": int, "second": int}).form == chosen


def test_the_environment_names_a_form(monkeypatch):
    x, routing, matrices = layer(5)
    monkeypatch.setenv(calibration.VARIABLE, "transposed")
    calibration.forget()
    grouped_experts(x, routing, *matrices)
    assert not calibration.choices()
    monkeypatch.setenv(calibration.VARIABLE, "fast")
    with pytest.raises(UserError, match="LLADA_UNI_EXPERTS is 'fast'; allowed: native, grouped, loop, transposed, batched"):
        grouped_experts(x, routing, *matrices)


def test_the_table_of_a_shape():
    found = speed.measure(small_config())
    assert [row.name for row in found] == ["queries, keys, values", "attention out", "head", "experts"]
    assert all(row.form in HERE and min(row.milliseconds.values()) > 0 for row in found)
    assert speed.native().startswith("compiled for vectors of" if products.available() else "not compiled: ")


def test_gradients_go_the_way_of_training():
    with torch.inference_mode(False), torch.enable_grad():
        x, weight = torch.randn(3, 8, requires_grad=True), torch.randn(4, 8)
        assert not forms.applies(x, weight) and not forms.applies(weight, x)
        forms.linear(x, weight).sum().backward()
        assert torch.allclose(x.grad, weight.sum(0).expand(3, -1))
        with torch.no_grad():
            assert forms.applies(x, weight)
    assert not forms.applies(torch.randn(3, 8).double(), torch.randn(4, 8).double())
    assert not forms.applies(torch.randn(3, 8), torch.randn(4, 8).bfloat16())
    assert not forms.applies(torch.randn(3, 8), torch.randn(8, 4).t())


@pytest.mark.skipif("native" not in HERE, reason="no compiler")
@pytest.mark.parametrize("seed", range(3))
def test_the_native_router_chooses_what_the_definition_does(seed):
    for changes in ({}, {"topk_group": 1}, {"n_group": 1, "topk_group": 1}, {"n_group": 8, "topk_group": 3}):
        router = Router(small_config(**changes)).eval()
        draw = torch.Generator().manual_seed(seed)
        router.weight.normal_(generator=draw)
        router.expert_bias.normal_(0, 0.2, generator=draw)
        x = torch.randn(200, 16, generator=draw)
        with calibration.using("loop"):
            shares, chosen, _ = router(x)
        with calibration.using("native"):
            found, experts, logits = router(x)
        assert logits.shape == (200, 8) and experts.dtype == torch.int64 and found.dtype == torch.float32
        spread = torch.zeros(200, 8).scatter_(1, chosen, shares)
        assert torch.allclose(torch.zeros(200, 8).scatter_(1, experts, found), spread, atol=1e-6)


@pytest.mark.skipif("native" not in HERE, reason="no compiler")
@pytest.mark.parametrize("width", [1, 8, 40, 515])
def test_the_native_norm_equals_the_definition(width):
    draw = torch.Generator().manual_seed(width)
    x, weight = torch.randn(3, 5, width, generator=draw) * 7, torch.randn(width, generator=draw)
    with calibration.using("native"):
        assert torch.allclose(rms_norm(x, weight, 1e-6), rms_norm_plain(x, weight, 1e-6), atol=1e-5)


@pytest.mark.skipif("native" not in HERE, reason="no compiler")
def test_native_heads_are_normalized_and_turned_as_the_definition_says():
    draw = torch.Generator().manual_seed(0)
    fused, weight = torch.randn(2, 7, 6, 20, generator=draw), torch.randn(4, 20, generator=draw)
    tables = rotary_tables(torch.randint(0, 500, (2, 7), generator=draw), 10, 1e4, torch.float32)
    expected = apply_rotary(rms_norm_plain(fused[:, :, :4], weight, 1e-6), tables)
    assert torch.allclose(products.turn(fused, weight, tables, 1e-6), expected, atol=1e-5)


@pytest.mark.parametrize("form", HERE)
def test_swiglu_equals_its_definition(form):
    draw = torch.Generator().manual_seed(1)
    block = SwiGLU(24, 50)
    for parameter in block.parameters():
        parameter.normal_(generator=draw)
    x = torch.randn(2, 9, 24, generator=draw)
    expected = block.double()(x.double())
    with calibration.using(form):
        assert distance(block.float()(x), expected) < 1e-6
