"""The recorded checks on a directory of quite other sizes, recorded here from our own parts: nothing is known
by heart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal_square
from llada_uni.checkpoint.load import save_backbone
from llada_uni.config import BackboneConfig
from llada_uni.decoder.decode import ImageDecoder
from llada_uni.decoder.model import build_transformer, build_vae, save_transformer, save_vae
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.generation.engine import Engine
from llada_uni.generation.settings import Settings
from llada_uni.image.codes import ImageCodes
from llada_uni.image.geometry import Preprocessing
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.verify.verify import verify


def randomize(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return module.eval().requires_grad_(False)


def record_backbone(golden: Path, folder: Path) -> None:
    config = replace(
        BackboneConfig.from_json(golden / "backbone"),
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_experts=8, n_group=2, topk_group=1,
        num_experts_per_tok=2, head_dim=8,
        moe_intermediate_size=16, num_shared_experts=2, image_token_offset=64,
    )  # fmt: skip
    model = Backbone(config, experts="plain").eval()
    save_backbone(model, folder, max_shard_bytes=30_000)
    ids = torch.randint(96, (3, 21), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(ids, attention_mask=block_causal_square(21, 3))
        embedded = model.model.word_embeddings(ids[:1])
        hidden = model.hidden(ids[:1], attention_mask=block_causal_square(21, 3))
    recorded = {"logits.block3.input_ids": ids, "logits.block3.logits": logits, "hidden.0": embedded}
    save_file({**recorded, "hidden.2": hidden}, folder / "forward.safetensors")
    settings = Settings(
        block_length=4, steps=2, threshold=0.9, gen_length=10, mask_id=95, stop_ids=(94,), early_stop=True
    )
    output = Engine(model).generate([1, 2, 3], settings).tokens
    entry = {"kind": "text", "prompt": [1, 2, 3], "output": list(output), "block_length": 4, "steps": 2}
    entry |= {"threshold": 0.9, "gen_length": 10, "mask_id": 95, "eos_id": 94, "eos_early_stop": True}
    (folder / "generation.json").write_text(json.dumps([entry]))


def record_pictures(folder: Path) -> None:
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_heads": 2,
        "depth": 1,
        "patch_size": 16,
        "image_size": 64,
    }
    vq = {"num_embeddings": 20, "embed_dim": 16, "latent_channels": 24}
    settings = Preprocessing(
        patch_size=16, understand_min_pixels=4000, understand_max_pixels=4200, edit_max_cells=4
    )
    tokenizer = randomize(ImageTokenizer({"vision_config": vision, "vq_config": vq}, settings), 1)
    tokenizer.save_pretrained(folder / "image_tokenizer")
    picture = Image.effect_mandelbrot((48, 32), (-2, -1, 1, 1), 50).convert("RGB")
    picture.save(folder / "image_tokenizer" / "a.png")
    codes = tokenizer.encode(picture, "raw")
    entry = {"file": "a.png", "grid_thw": [1, codes.height, codes.width], "token_ids": list(codes.codes)}
    (folder / "image_tokenizer" / "tokens.json").write_text(json.dumps([entry]))
    size = {"height": 90, "width": 90, "understand_single": [64, 64], "edit_after_crop": [64, 64]}
    (folder / "resize.json").write_text(json.dumps({"sizes": [size]}))


def record_decoder(golden: Path, folder: Path) -> None:
    config = json.loads((golden / "decoder" / "config.json").read_text())
    config |= {
        "all_patch_size": [4],
        "in_channels": 3,
        "dim": 24,
        "n_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
    }
    config |= {"cap_feat_dim": 10}
    vae_config = json.loads((golden / "vae" / "config.json").read_text())
    vae_config |= {
        "block_out_channels": [8, 8, 16], "latent_channels": 3, "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
    }  # fmt: skip
    decoder = ImageDecoder(
        sigvq=randomize(SigVQ(20, 10), 2),
        transformers={"turbo": randomize(build_transformer(config), 3)},
        vae=randomize(build_vae(vae_config), 4),
    )
    decoder.sigvq.save_pretrained(folder / "image_tokenizer" / "sigvq_embedding.pt")
    save_transformer(decoder.transformer("turbo"), folder / "decoder-turbo")
    save_vae(decoder.vae, folder / "vae")
    codes = ImageCodes((4, 19), 2, 1)
    noise = torch.randn(decoder.latent_shape(codes, "turbo"), generator=torch.Generator().manual_seed(5))
    fresh = torch.randn((3, *noise.shape), generator=torch.Generator().manual_seed(6))
    latents = decoder.latents(codes, "turbo", 3, noise=noise, renoise=fresh.unbind(0))
    assert latents.shape == (1, 3, 1, 16, 8)
    recorded = {
        "token_ids": torch.tensor(codes.codes), "grid": torch.tensor([2, 1]), "noise": noise,
        "condition": decoder.condition(codes)[0], "latents.decoder-turbo.3": latents.float(),
        "renoise.decoder-turbo.3": fresh, "pixels.decoder-turbo.3": decoder.pixels(latents),
    }  # fmt: skip
    save_file(recorded, folder / "decode.safetensors")


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    place = tmp_path_factory.mktemp("other")
    record_backbone(golden, place)
    record_pictures(place)
    record_decoder(golden, place)
    return place


def test_all_checks_pass(folder):
    checks = verify(folder)
    assert {check.name: check.detail for check in checks if not check.ok} == {}
    assert {check.name for check in checks} == {
        "backbone.logits.block3.logits", "backbone.hidden.0", "backbone.hidden.2",
        "backbone.generation.0.text",
        "image.codes.a.png", "image.sizes",
        "decoder.condition", "decoder.latents.decoder-turbo.3", "decoder.pixels.decoder-turbo.3",
    }  # fmt: skip


def test_a_wrong_number_is_noticed(folder):
    file = folder / "decode.safetensors"
    before = file.read_bytes()
    tensors = load_file(file)
    tensors["latents.decoder-turbo.3"][0, 0, 0, 0, 0] += 1e-3
    save_file(tensors, file)
    try:
        assert {check.name for check in verify(folder) if not check.ok} >= {"decoder.latents.decoder-turbo.3"}
    finally:
        file.write_bytes(before)
