"""The released sizes, on the meta device: every released name maps, with its shape, and nothing is left over.

The lists here are written from the design's description of the files, not from the code's tables.
"""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.info import active_parameters, backbone_parameters
from llada_uni.checkpoint.layout import places, released_shapes, stacked_shapes
from llada_uni.config import BackboneConfig
from llada_uni.decoder import model as decoder
from llada_uni.image import tokenizer


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    assert all(parameter.is_meta for parameter in module.parameters())
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def released_backbone() -> dict[str, tuple[int, ...]]:
    width, vocabulary, head = 2048, 173568, 128
    names = {"model.word_embeddings.weight": (vocabulary, width), "lm_head.weight": (vocabulary, width)}
    names["model.norm.weight"] = (width,)
    for n in range(20):
        layer = f"model.layers.{n}"
        names[f"{layer}.input_layernorm.weight"] = names[f"{layer}.post_attention_layernorm.weight"] = (
            width,
        )
        names[f"{layer}.attention.query_key_value.weight"] = (16 * head + 4 * head + 4 * head, width)
        names[f"{layer}.attention.dense.weight"] = (width, 16 * head)
        names[f"{layer}.attention.query_layernorm.weight"] = (head,)
        names[f"{layer}.attention.key_layernorm.weight"] = (head,)
        if n == 0:
            networks = {f"{layer}.mlp": 5120}
        else:
            names[f"{layer}.mlp.gate.weight"], names[f"{layer}.mlp.gate.expert_bias"] = (256, width), (256,)
            networks = {f"{layer}.mlp.experts.{e}": 512 for e in range(256)}
            networks[f"{layer}.mlp.shared_experts"] = 512
        for network, inner in networks.items():
            names[f"{network}.gate_proj.weight"] = names[f"{network}.up_proj.weight"] = (inner, width)
            names[f"{network}.down_proj.weight"] = (width, inner)
    return names


def test_backbone():
    config = BackboneConfig.released_16b()
    expected = released_backbone()
    assert len(expected) == 3 + 20 * 6 + 3 + 19 * (2 + 3 * 257)
    assert released_shapes(config) == expected
    with torch.device("meta"):
        model = Backbone(config)
    assert shapes(model) == stacked_shapes(config)
    used = [name for place in places(config) for name in place.released]
    assert len(used) == len(set(used)) == len(expected)


def test_backbone_size():
    config = BackboneConfig.released_16b()
    total = sum(torch.Size(shape).numel() for shape in released_backbone().values())
    assert backbone_parameters(config) == total
    assert total == pytest.approx(16e9, rel=0.03)
    assert active_parameters(config) == pytest.approx(1.4e9, rel=0.1)


def released_tokenizer() -> set[str]:
    vision, both = "model.visual", ("weight", "bias")
    names = {f"{vision}.patch_embed.proj.{kind}" for kind in both}
    names |= {f"{vision}.embeddings.position_embedding.weight", "model.vqmodel.quantize.embedding.weight"}
    names |= {f"model.vqmodel.{conv}.{kind}" for conv in ("quant_conv", "post_quant_conv") for kind in both}
    parts = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    return names | {
        f"{vision}.blocks.{n}.{part}.{kind}" for n in range(40) for part in parts for kind in both
    }


def test_tokenizer():
    with torch.device("meta"):
        module = tokenizer.ImageTokenizer(tokenizer.released_tokenizer_config())
    expected = released_tokenizer()
    found = shapes(module)
    assert {tokenizer.to_module_name(name) for name in expected} == set(found)
    assert {tokenizer.to_released_name(name) for name in found} == expected
    assert found["vq.quantize.embedding.weight"] == (16384, 2048)
    assert found["vision.patch_embed.proj.weight"] == (1536, 3, 16, 16)
    assert found["vision.blocks.39.mlp.fc1.weight"] == (6144, 1536)


def released_decoder() -> set[str]:
    both = ("weight", "bias")
    names = {f"all_x_embedder.2-1.{kind}" for kind in both} | {"x_pad_token", "cap_pad_token"}
    names |= {
        f"all_final_layer.2-1.{part}.{kind}" for part in ("linear", "adaLN_modulation.1") for kind in both
    }
    names |= {f"t_embedder.mlp.{i}.{kind}" for i in (0, 2) for kind in both}
    names |= {"semantic_embedder.0.weight", "semantic_embedder.1.weight", "semantic_embedder.1.bias"}
    attention = ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k")
    parts = [f"attention.{part}" for part in attention] + [f"feed_forward.w{i}" for i in (1, 2, 3)]
    parts += ["attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"]
    for stack, count in (("layers", 30), ("noise_refiner", 2), ("context_refiner", 2)):
        for n in range(count):
            names |= {f"{stack}.{n}.{part}.weight" for part in parts}
            if stack != "context_refiner":  # the condition does not know the time
                names |= {f"{stack}.{n}.adaLN_modulation.0.{kind}" for kind in both}
    return names


def test_decoder():
    with torch.device("meta"):
        module = decoder.build_transformer(decoder.released_decoder_config())
    expected, found = released_decoder(), shapes(module)
    assert {decoder.to_module_name(name) for name in expected} == set(found)
    assert {decoder.to_released_name(name) for name in found} == expected
    assert found["cap_embedder.1.weight"] == (3840, 4096)
    assert found["all_x_embedder.2-1.weight"] == (3840, 2 * 2 * 16)
    assert sum(parameter.numel() for parameter in module.parameters()) == pytest.approx(6e9, rel=0.05)


def released_vae() -> set[str]:
    both = ("weight", "bias")
    plain: list[str] = []

    def resnet(place: str, shortcut: bool) -> None:
        plain.extend(f"{place}.{part}" for part in ("norm1", "conv1", "norm2", "conv2"))
        if shortcut:
            plain.append(f"{place}.conv_shortcut")

    for half, stages, resnets, grow in (("encoder", "down", 2, (1, 2)), ("decoder", "up", 3, (2, 3))):
        plain.extend(f"{half}.{part}" for part in ("conv_in", "conv_norm_out", "conv_out"))
        resnet(f"{half}.mid_block.resnets.0", False)
        resnet(f"{half}.mid_block.resnets.1", False)
        parts = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")
        plain.extend(f"{half}.mid_block.attentions.0.{part}" for part in parts)
        for stage in range(4):
            block = f"{half}.{stages}_blocks.{stage}"
            for n in range(resnets):
                resnet(f"{block}.resnets.{n}", stage in grow and n == 0)
            if stage < 3:
                plain.append(f"{block}.{stages}samplers.0.conv")
    return {f"{name}.{kind}" for name in plain for kind in both}


def test_vae():
    with torch.device("meta"):
        module = decoder.build_vae(decoder.released_vae_config())
    assert set(shapes(module)) == released_vae()
    assert decoder.vae_factor(module) == 8
    assert module.config.latent_channels == 16
