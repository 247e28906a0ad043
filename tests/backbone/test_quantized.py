"""Quantized experts: how far the stored weights are from the given ones, and how exactly they are computed with.

Error bounds are relative (norm of the difference over norm of the truth); measured worst cases stand beside them.
"""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import Backbone, calibration, quantized
from llada_uni.backbone.moe import Routing, plain_experts
from llada_uni.backbone.native import products
from llada_uni.backbone.quantized import (
    MATRICES,
    QuantizedExperts,
    QuantizedMatrix,
    has_int4_kernel,
    scheme_of,
    use_quantized_experts,
)
from llada_uni.backbone.quantized_formats import (
    Scheme,
    dequantize,
    expand,
    float8_to_float16,
    make_scheme,
    quantize,
)
from llada_uni.errors import UserError
from tests.backbone.helpers import small_config

SCHEMES = {
    "int8": make_scheme("int8"),
    "int4": make_scheme("int4"),
    "int4, group 32": make_scheme("int4", 32),
    "float8": make_scheme("float8"),
    "float8, blocks": Scheme("float8", 128, 128),
    "float8, whole": Scheme("float8", None, None),
}
LARGEST = {"int8": 0.009, "int4": 0.1, "float8": 0.028}  # measured on normal weights: 0.0083, 0.095, 0.0265


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distance(found: torch.Tensor, truth: torch.Tensor) -> float:
    return ((found.double() - truth.double()).norm() / truth.double().norm()).item()


# --- formats ---


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("shape", [(64, 128), (160, 192), (192, 160), (3, 200, 256)])
def test_there_and_back(name, shape):
    scheme, weight = SCHEMES[name], normal(*shape) * 0.02
    if shape[-1] % 32 and scheme.format == "int4":
        with pytest.raises(UserError, match="int4 needs rows of a multiple of 32 weights, not 200"):
            quantize(weight, scheme)
        return
    stored = quantize(weight, scheme)
    expected = scheme.shapes(1, *shape[-2:])
    for part, tensor in stored._asdict().items():
        assert (tuple(tensor.shape[-len(expected[part][0]) + 1 :]), tensor.dtype) == (
            expected[part][0][1:],
            expected[part][1],
        )
    assert distance(dequantize(stored, scheme, shape[-2]), weight) < LARGEST[scheme.format]


def test_every_weight_is_within_half_a_step():
    weight = normal(64, 256)
    int8 = quantize(weight, SCHEMES["int8"])
    step = int8.scale.float()  # rounded to bfloat16, so the largest weight may be clipped by 1 / 256 of itself
    clipped = (weight.abs() - 127 * step).clamp(min=0)
    assert ((dequantize(int8, SCHEMES["int8"], 64) - weight).abs() <= step / 2 * 1.001 + clipped).all()


def test_int4_uses_its_zero_point():
    """Weights far from zero: a symmetric range would spend its steps on values that do not occur."""
    weight = normal(64, 128) * 0.01 + 1.0
    assert (dequantize(quantize(weight, SCHEMES["int4"]), SCHEMES["int4"], 64) - weight).abs().max() < 0.008
    assert distance(dequantize(quantize(weight, SCHEMES["int4"]), SCHEMES["int4"], 64) - 1, weight - 1) < 0.3


@pytest.mark.parametrize("name", SCHEMES)
def test_zeros_and_an_outlier(name):
    weight = torch.zeros(64, 128)
    weight[3, 5] = 1e4
    back = dequantize(quantize(weight, SCHEMES[name]), SCHEMES[name], 64)
    assert back.isfinite().all()
    assert back[3, 5].item() == pytest.approx(1e4, rel=0.16)  # int4 may shrink a group's range
    assert back[10:].abs().max() < 1e-9


def test_float8_is_read_exactly():
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    numbers = every[~every.float().isnan()]
    assert len(numbers) == 254
    assert torch.equal(float8_to_float16(numbers).float(), numbers.float())


def test_expand_cuts_the_edge_blocks():
    scale = torch.arange(6.0).view(2, 3)
    spread = expand(scale, (2, 4), torch.Size((3, 10))).broadcast_to(3, 10)
    assert torch.equal(spread, scale.repeat_interleave(2, 0).repeat_interleave(4, 1)[:3, :10])


def test_scheme_in_a_config():
    for scheme in SCHEMES.values():
        assert Scheme.from_json(scheme.to_json()) == scheme
    with pytest.raises(UserError, match=r"has the format 'int3' .* allowed: int8, int4, float8"):
        Scheme.from_json({"format": "int3", "block": [1, 2]})
    with pytest.raises(UserError, match="unknown format 'int3'; allowed: int8, int4, float8"):
        make_scheme("int3")
    with pytest.raises(UserError, match="the group is 100; allowed: 32, 64, 128, 256"):
        make_scheme("int4", 100)


def test_the_group_is_the_largest_that_divides_the_columns():
    assert [make_scheme("int4").block(8, columns)[1] for columns in (2048, 192, 160, 96)] == [128, 64, 32, 32]
    assert make_scheme("int4", 64).block(8, 2048) == (1, 64)


# --- experts ---


def experts_and_truth(scheme, width=192, inner=160, count=8, seed=0):
    config = small_config(hidden_size=width, moe_intermediate_size=inner, num_experts=count, n_group=1, topk_group=1)
    held = QuantizedExperts(config, scheme)
    weights = []
    for number, name in enumerate(MATRICES):
        matrix = getattr(held, name)
        given = normal(count, matrix.rows, matrix.columns, seed=seed + number) * 0.1
        for expert in range(count):
            matrix.put(expert, given[expert])
        weights.append(given)
    return held.eval(), weights


def routing_of(tokens, count=8, chosen=2, seed=5):
    draw = torch.Generator().manual_seed(seed)
    experts = torch.stack([torch.randperm(count, generator=draw)[:chosen] for _ in range(tokens)])
    return Routing(torch.rand(tokens, chosen, generator=draw), experts, torch.empty(0))


@pytest.fixture
def torchs_kernels():
    """Without the products that are compiled here."""
    with calibration.using("grouped"):
        yield


@pytest.mark.parametrize("form", ["grouped", "native"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 9, 300])
@pytest.mark.parametrize("name", SCHEMES)
def test_computes_what_the_stored_weights_say(name, tokens, dtype, form):
    """Kernels (few rows) and weights taken back (many) against float32 on the dequantized weights."""
    if form == "native" and not products.available():
        pytest.skip("no compiler")
    held, _ = experts_and_truth(SCHEMES[name])
    x, routing = normal(tokens, 192, seed=9), routing_of(tokens)
    back = [getattr(held, matrix).weights(0, 8) for matrix in MATRICES]
    with calibration.using(form):
        found = held(x.to(dtype), routing)
    assert found.dtype == dtype
    assert distance(found, plain_experts(x, routing, *back)) < 0.008  # measured: 0.0059, the rounding of bfloat16


@pytest.mark.parametrize(("name", "bound"), [("int8", 0.02), ("int4", 0.18), ("float8", 0.06)])
def test_error_of_the_whole_feed_forward(name, bound):
    """Against the given weights: three matrices' rounding together. Measured: 0.014, 0.15, 0.046."""
    held, weights = experts_and_truth(SCHEMES[name])
    x, routing = normal(40, 192, seed=9), routing_of(40)
    assert distance(held(x, routing), plain_experts(x, routing, *weights)) < bound


@pytest.mark.usefixtures("torchs_kernels")
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_kernel_equals_taking_the_weights_back(name, monkeypatch):
    held, _ = experts_and_truth(SCHEMES[name])
    x, routing = normal(20, 192, seed=3), routing_of(20)
    fast = held(x, routing)
    monkeypatch.setattr(quantized, "KERNEL_ROWS", {})
    assert distance(fast, held(x, routing)) < 0.008
    assert not torch.equal(fast, held(x, routing))  # two ways, indeed


@pytest.mark.usefixtures("torchs_kernels")
@pytest.mark.parametrize("name", SCHEMES)
def test_the_gpus_way_in_chunks(name, monkeypatch):
    """The same on a CPU, where the grouped product runs too; chunks that do not divide the experts."""
    monkeypatch.setattr(quantized, "GPU_CHUNK", 3)
    monkeypatch.setattr(QuantizedMatrix, "forward", lambda self, rows, segments: self._chunked(rows, segments.ends))
    held, _ = experts_and_truth(SCHEMES[name])
    x, routing = normal(30, 192, seed=9), routing_of(30)
    routing.experts[routing.experts == 4] = 0  # one expert without work
    back = [getattr(held, matrix).weights(0, 8) for matrix in MATRICES]
    assert distance(held(x, routing), plain_experts(x, routing, *back)) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="float8 products need a GPU")
def test_float8_on_a_gpu():
    held, _ = experts_and_truth(SCHEMES["float8"])
    x, routing = normal(40, 192, seed=9), routing_of(40)
    truth = held(x, routing)
    found = held.cuda()(x.cuda().bfloat16(), Routing(*(part.cuda() for part in routing)))
    assert distance(found.cpu(), truth) < 0.06  # the rows are rounded to float8 too


@pytest.mark.usefixtures("torchs_kernels")
def test_unaligned_int8_does_not_reach_the_kernel():
    """A tensor mapped from a file may start anywhere; torch's kernel would crash on it."""
    held, _ = experts_and_truth(SCHEMES["int8"])
    x, routing = normal(60, 192, seed=9), routing_of(60)
    before = held(x, routing)
    matrix = held.gate_proj
    moved = torch.empty(matrix.values.numel() + 8, dtype=torch.int8)[8:].view_as(matrix.values)
    matrix.values = moved.copy_(matrix.values)
    assert matrix.values.data_ptr() % quantized.INT8_ALIGNMENT == 8
    assert distance(held(x, routing), before) < 0.008


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_native_rows_do_not_depend_on_their_company(name):
    if not products.available():
        pytest.skip("no compiler")
    held, _ = experts_and_truth(SCHEMES[name])
    x, routing = normal(60, 192, seed=9), routing_of(60)
    together = held(x, routing)
    for row in (0, 31, 59):
        alone = Routing(*(part[row : row + 1] for part in routing[:2]), routing.logits)
        assert torch.equal(held(x[row : row + 1], alone)[0], together[row])


def test_narrow_experts():
    """Widths that no kernel takes: int8 works all the same."""
    held, _ = experts_and_truth(SCHEMES["int8"], width=20, inner=12)
    x, routing = normal(50, 20, seed=9), routing_of(50)
    back = [getattr(held, matrix).weights(0, 8) for matrix in MATRICES]
    assert distance(held(x, routing), plain_experts(x, routing, *back)) < 1e-5
    with pytest.raises(UserError, match="int4 needs rows of a multiple of 32"):
        experts_and_truth(SCHEMES["int4"], width=20, inner=12)


def test_dtypes_stay_when_the_model_changes_its_own():
    model = use_quantized_experts(Backbone(small_config(hidden_size=32, moe_intermediate_size=32)), SCHEMES["int4"])
    assert scheme_of(model) == SCHEMES["int4"]
    assert scheme_of(Backbone(small_config())) is None
    before = {name: buffer.dtype for name, buffer in model.named_buffers() if ".experts." in name}
    model.to(torch.bfloat16)
    assert {name: buffer.dtype for name, buffer in model.named_buffers() if ".experts." in name} == before
    assert model.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.usefixtures("torchs_kernels")
def test_int4_kernel_is_recognized_by_its_packing(monkeypatch):
    """On a processor with another order, the check says no, and the weights are taken back instead."""
    held, _ = experts_and_truth(SCHEMES["int4"])
    x, routing = normal(7, 192, seed=3), routing_of(7)
    monkeypatch.setattr(quantized, "has_int4_kernel", lambda: False)
    back = [getattr(held, matrix).weights(0, 8) for matrix in MATRICES]
    assert distance(held(x, routing), plain_experts(x, routing, *back)) < 1e-5
    assert isinstance(has_int4_kernel(), bool)


@pytest.mark.skipif(not products.available(), reason="no compiler")
@pytest.mark.parametrize(("rows", "columns"), [(512, 192), (100, 96), (64, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_int4_weight_taken_back_compiled_is_what_it_stands_for(rows, columns, dtype):
    matrix = QuantizedMatrix(make_scheme("int4"), 2, rows, columns)
    for expert in range(2):
        matrix.put(expert, torch.randn(rows, columns, generator=torch.Generator().manual_seed(expert)))
    with calibration.using("native"):
        found = matrix.weight(1, dtype)
    with calibration.using("loop"):
        truth = matrix.weight(1, dtype)
    assert found.shape == (rows, columns) and found.dtype == dtype
    torch.testing.assert_close(found, truth, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=1e-7)
