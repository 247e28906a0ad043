"""The lean RMSNorm equals diffusers' bit for bit, and is what a loaded decoder computes with."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.normalization import RMSNorm

from llada_uni.decoder.model import load_transformer
from llada_uni.decoder.norm import LeanRMSNorm, lean_norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 40, 64), (3, 7, 4, 16)])
def test_same_bits(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    plain, lean = RMSNorm(shape[-1], 1e-5), RMSNorm(shape[-1], 1e-5)
    plain.weight.data = lean.weight.data = torch.rand(shape[-1], generator=generator).to(dtype)
    lean_norms(lean)
    x = (torch.randn(shape, generator=generator) * 3).to(dtype)
    before = x.clone()
    with torch.inference_mode():
        assert type(lean) is LeanRMSNorm and torch.equal(lean(x), plain(x)) and torch.equal(x, before)


def test_gradients_are_the_library_s():
    norm = RMSNorm(8, 1e-5)
    lean_norms(norm)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    norm(x).square().sum().backward()
    assert x.grad is not None and norm.weight.grad is not None


def test_a_loaded_decoder_is_lean(golden):
    model = load_transformer(golden / "decoder")
    kinds = {type(module) for module in model.modules() if isinstance(module, RMSNorm)}
    assert kinds == {LeanRMSNorm}
