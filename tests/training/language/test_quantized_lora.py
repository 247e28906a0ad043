"""Adapters on quantized experts: equal to LoRA over the dequantized weights, in peft's format, merged and rounded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_uni.backbone import Backbone
from llada_uni.backbone.quantized import scheme_of
from llada_uni.backbone.quantized_formats import dequantize, quantize
from llada_uni.checkpoint.layout import places
from llada_uni.checkpoint.load import convert, load_backbone, save_backbone
from llada_uni.checkpoint.quantize import quantize as quantize_directory
from llada_uni.checkpoint.source import Source
from llada_uni.errors import UserError
from llada_uni.training.export import export_checkpoint, export_model
from llada_uni.training.language.lora import LoraOptions, adapters_of, add_lora, load_adapter
from llada_uni.training.language.quantized_lora import QuantizedLoraExperts, delta
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.recipes.recipe import read_recipe, train
from tests.backbone.helpers import small_config
from tests.checkpoint.test_fp8 import round_to_float8
from tests.training.test_lora_stage import RECIPE
from tests.training.token_folder import CODEBOOK, make_token_folder

CONFIG = small_config(vocab_size=400 + CODEBOOK, image_token_offset=400, hidden_size=32, moe_intermediate_size=32)
IDS = torch.arange(100, 118).view(2, 9)
KINDS = ("int8", "int4", "float8", "released")
LORA = "options.lora={rank: 2, alpha: 4, embeddings: true, head: true}"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A plain model, and for each kind of storing a quantized one beside the plain one that it stands for."""
    root = tmp_path_factory.mktemp("qlora")
    make_token_folder(root / "tokens")
    save_backbone(Backbone(CONFIG), root / "plain")
    for kind in KINDS:
        if kind == "released":
            write_released_fp8(root / "plain", root / kind)
        else:
            quantize_directory(root / "plain", root / kind, kind, group=32)
        convert(root / kind, root / f"{kind}-truth", "released")
    return root


def write_released_fp8(plain: Path, folder: Path) -> None:
    """Float8 experts with a scale for each block of 24 x 32, as the released FP8 directory has them."""
    tensors = load_file(plain / "model.safetensors")
    for name, weight in list(tensors.items()):
        if ".mlp.experts." in name:
            tensors[name], tensors[f"{name}_scale_inv"], _ = round_to_float8(weight, (24, 32))
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((plain / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [24, 32]}
    (folder / "config.json").write_text(json.dumps(config))


def run(root: Path, init: str, out: Path, *changes: str) -> list[float]:
    """Losses of a short LoRA run."""
    text = RECIPE.replace("out: run", f"out: {out}").replace("init: base", f"init: {root / init}")
    out.parent.mkdir(exist_ok=True, parents=True)
    recipe = out.parent / f"{out.name}.yaml"
    recipe.write_text(text.replace("{tokens:", f"{{{root}/tokens:"))
    train(read_recipe(recipe, [LORA, *changes]))
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*rounded to")
def test_it_equals_lora_over_the_dequantized_weights(root, tmp_path, kind):
    plain = run(root, f"{kind}-truth", tmp_path / "plain")
    small = run(root, kind, tmp_path / "small", "options.quantization=stored", "parallel.activation_checkpointing=true")
    assert small == pytest.approx(plain, rel=1e-5) and len(set(small)) == len(small)
    adapters = [load_file(tmp_path / name / "model/adapter/adapter_model.safetensors") for name in ("plain", "small")]
    torch.testing.assert_close(adapters[1], adapters[0], rtol=1e-3, atol=1e-5)  # the same names: peft's
    truth = load_backbone(root / f"{kind}-truth")
    merged = load_adapter(truth, tmp_path / "small" / "model" / "adapter")(IDS)
    torch.testing.assert_close(merged, load_backbone(tmp_path / "plain" / "model")(IDS), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "int4", "released"])
def test_the_adapter_is_merged_and_rounded_again_and_the_error_said(root, tmp_path, kind):
    with pytest.warns(UserWarning, match=r"rounded to (int8|int4|float8) again, the merged experts are \d+\.\d+% off") as said:
        run(root, kind, tmp_path / "run", "options.quantization=stored")
    model, adapter = tmp_path / "run" / "model", tmp_path / "run" / "model" / "adapter"
    scheme = Source(root / kind).scheme
    assert scheme_of(load_backbone(model)) == scheme and len({str(one.message) for one in said}) == 1
    # Every expert is the dequantized one with the adapter's product, rounded once; the rest is plain and exact.
    truth, merged, exact = Source(root / f"{kind}-truth"), Source(model), load_backbone(root / f"{kind}-truth")
    found = {one.weight: one for one in adapters_of(load_adapter(exact, adapter))}
    for place in places(CONFIG):
        if place.stacked:
            one = found[place.name]
            for expert in range(CONFIG.num_experts):
                wanted = truth.expert(place, expert) + one.scaling * delta(one.down, one.up, 2, expert)
                rounded = dequantize(quantize(wanted, scheme), scheme, place.shape[1])
                torch.testing.assert_close(merged.expert(place, expert), rounded, rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="rounded to"):
        exported = export_model(tmp_path / "exported", [root / kind], adapter=adapter).folder
    torch.testing.assert_close(load_backbone(exported)(IDS), load_backbone(model)(IDS))
    plain = export_model(tmp_path / "as-plain", [root / f"{kind}-truth"], adapter=adapter).folder
    assert scheme_of(load_backbone(plain)) is None


@pytest.mark.filterwarnings("ignore:.*rounded to")
def test_checkpoints_leave_the_quantized_weights_out_and_go_on(root, tmp_path):
    keys = ["options.quantization=int8", "loop.save_every=1", "loop.schedule=constant", "loop.steps=4"]
    whole = run(root, "plain", tmp_path / "whole", *keys)  # quantized while it is read
    run(root, "plain", tmp_path / "cut", *keys[:3], "loop.steps=2")
    assert run(root, "plain", tmp_path / "cut", *keys) == whole
    state = load_full(tmp_path / "cut")
    assert not any("values" in name or "gate_proj.scale" in name for name in state)
    assert sum("lora_A" in name for name in state) == 2 * 2 + 3  # two layers' attention, one layer's experts
    again = export_checkpoint(tmp_path / "cut", tmp_path / "again")
    torch.testing.assert_close(load_backbone(again)(IDS), load_backbone(tmp_path / "cut" / "model")(IDS))


def test_bfloat16_and_fresh_adapters(root):
    """The kernels' own arithmetic, and adapters that change nothing before training."""
    for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        kept = load_backbone(root / "int4", dtype=dtype)
        adapted = add_lora(load_backbone(root / "int4", dtype=dtype), LoraOptions(rank=2), seed=0)
        assert any(isinstance(module, QuantizedLoraExperts) for module in adapted.modules())
        expected = load_backbone(root / "int4-truth", dtype=dtype)(IDS)
        assert ((adapted(IDS) - expected).norm() / expected.norm()).item() < close
        assert ((kept(IDS) - expected).norm() / expected.norm()).item() < 0.1
        adapted(IDS).square().mean().backward()
        learned = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
        assert learned == {name for name, parameter in adapted.named_parameters() if "lora_" in name}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["options.lora=null", "options.quantization=int8"], "quantization is for lora"),
        (["options.quantization=stored"], "experts of .* are plain"),
        (["options.quantization=int8", "options.low_memory=true"], "low_memory is not for quantization"),
        (["options.quantization=int8", "options.lora={attention: false}"], "lora.attention"),
        (["options.quantization=int3"], "stored, int8, int4, float8"),
    ],
)
def test_what_does_not_go_together_is_refused(root, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        run(root, "plain", tmp_path / "run", *changes)
