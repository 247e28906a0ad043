"""Directories whose experts are float8 with scales, in both customs, made here the way others make them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_uni.backbone.quantized import scheme_of
from llada_uni.backbone.quantized_formats import Scheme, make_scheme
from llada_uni.checkpoint.info import model_info
from llada_uni.checkpoint.load import convert, load_backbone
from llada_uni.checkpoint.quantize import quantize
from llada_uni.errors import UserError

# (suffix of the scale, block; None: all of them) -> the scheme it must be read as. Blocks of 24 x 32 leave an edge.
CUSTOMS = {
    "released blocks": ("_scale_inv", (24, 32), Scheme("float8", 24, 32)),
    "one a tensor": ("_scale", (None, None), Scheme("float8", None, None)),
    "one a row": ("_scale", (1, None), Scheme("float8", 1, None)),
}


def round_to_float8(weight, block):
    """By hand, block by block: (values, scales, what they stand for)."""
    rows, columns = weight.shape
    high, wide = block[0] or rows, block[1] or columns
    values, truth = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
    scales = torch.empty(-(-rows // high), -(-columns // wide))
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = (slice(i * high, (i + 1) * high), slice(j * wide, (j + 1) * wide))
            scales[i, j] = weight[at].abs().max() / 448
            values[at] = (weight[at] / scales[i, j]).to(torch.float8_e4m3fn)
            truth[at] = values[at].float() * scales[i, j]
    return values, scales, truth


def make(golden, folder, custom, also=()):
    """The recorded backbone with float8 experts, and `also` the named tensors -> the plain one that it stands for."""
    suffix, block, _ = CUSTOMS[custom]
    plain = load_file(golden / "backbone" / "model.safetensors")
    stored, truth = dict(plain), dict(plain)
    for name, weight in plain.items():
        if ".mlp.experts." in name or name in also:
            values, scales, truth[name] = round_to_float8(weight, block)
            stored[name] = values
            stored[name + suffix] = scales.reshape(()) if block == (None, None) else scales
    config = json.loads((golden / "backbone" / "config.json").read_text()) | {"use_fp8_experts": True}
    if block == (24, 32):
        config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": list(block)}
    plain_config = config | {"use_fp8_experts": False, "quantization_config": None}
    for name, tensors, fields in (("fp8", stored, config), ("truth", truth, plain_config)):
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps(fields))
    return folder / "fp8", folder / "truth"


def logits(model):
    return model(torch.arange(24)[None])


def distance(found, truth):
    return ((found - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("custom", CUSTOMS)
def test_loads_as_it_is_and_taken_back(golden, tmp_path, custom):
    folder, truth = make(golden, tmp_path, custom)
    expected = logits(load_backbone(truth))
    kept = load_backbone(folder)
    assert scheme_of(kept) == CUSTOMS[custom][2]
    assert kept.model.layers[1].mlp.experts.gate_proj.values.dtype == torch.float8_e4m3fn
    assert distance(logits(kept), expected) < 1e-5
    plain = load_backbone(folder, quantization="plain")
    assert scheme_of(plain) is None
    assert distance(logits(plain), expected) < 1e-6
    half = load_backbone(folder, dtype=torch.bfloat16, quantization="plain")
    assert half.model.layers[1].mlp.experts.gate_proj.dtype == torch.bfloat16


@pytest.mark.parametrize(("format", "bound"), [("int8", 0.05), ("int4", 0.4)])
def test_to_integers_on_the_fly_and_on_disk(golden, tmp_path, format, bound):
    folder, truth = make(golden, tmp_path, "released blocks")
    held = load_backbone(folder, quantization=format)
    assert scheme_of(held) == make_scheme(format)
    assert distance(logits(held), logits(load_backbone(truth))) < bound
    quantize(folder, tmp_path / "new", format)
    assert torch.equal(logits(load_backbone(tmp_path / "new")), logits(held))
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert "use_fp8_experts" not in config
    assert config["quantization_config"]["format"] == format


def test_info_and_convert(golden, tmp_path):
    folder, truth = make(golden, tmp_path, "released blocks")
    part, before = model_info(folder).parts[0], model_info(truth).parts[0]
    assert (part.quantization, part.layout) == ("float8", "released, float8")
    assert part.parameters == before.parameters
    convert(folder, tmp_path / "plain", "released")
    assert distance(logits(load_backbone(tmp_path / "plain")), logits(load_backbone(truth))) < 1e-6
    assert "use_fp8_experts" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_float8_outside_the_experts_is_taken_back(golden, tmp_path):
    also = ("model.layers.1.mlp.shared_experts.up_proj.weight", "model.layers.0.attention.dense.weight")
    folder, truth = make(golden, tmp_path, "released blocks", also)
    assert distance(logits(load_backbone(folder)), logits(load_backbone(truth))) < 1e-5


def test_scales_of_activations_are_passed_over(golden, tmp_path):
    folder, truth = make(golden, tmp_path, "one a tensor")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.experts.0.up_proj.input_scale"] = torch.ones(())
    save_file(tensors, folder / "model.safetensors")
    assert distance(logits(load_backbone(folder)), logits(load_backbone(truth))) < 1e-5


def test_broken(golden, tmp_path):
    folder, _ = make(golden, tmp_path, "released blocks")
    name = "model.layers.1.mlp.experts.3.up_proj.weight"

    def refuse(words, **changes):
        tensors = {**load_file(folder / "model.safetensors"), **{name + end[4:]: to for end, to in changes.items()}}
        broken = shutil.copytree(folder, tmp_path / "broken", dirs_exist_ok=True)
        save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, broken / "model.safetensors")
        with pytest.raises(UserError, match=words):
            load_backbone(broken)

    refuse(r"the float8 tensor .*3.up_proj.weight has no .*_scale_inv and no .*_scale", name_scale_inv=None)
    refuse(r"up_proj.weight_scale_inv has the shape \[7, 7\], which fits no block of 24 x 32", name_scale_inv=torch.ones(7, 7))
    refuse(r"the scales of the experts are of several kinds", name_scale_inv=torch.ones(()))
    refuse(r"only 95 of 96 expert tensors are float8", name=torch.ones(32, 64), name_scale_inv=None)
