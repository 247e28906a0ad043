"""A whole model directory with random weights, small enough for tests: 32 x 32 pixels are 4 x 4 codes.

Image tokenizer, decoders and VAE are copies of the recorded ones; the backbone has the recorded shape with
room for a byte-level vocabulary, and the text tokenizer is trained on a handful of words.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import torch

from llada_uni.backbone.model import Backbone
from llada_uni.checkpoint.load import save_backbone
from llada_uni.config import BackboneConfig
from llada_uni.text.tokenizer import train_tokenizer

WORDS = [
    "a cat and a dog on green",
    "what is at the top left?",
    "tell a story about a cat",
    "nothing is there.",
]
CODES = {"steps": 4, "threshold": 0.9}
TEXT = {"steps": 4, "threshold": 0.9, "max_tokens": 12}
GENERATION = {
    "block_length": 8,
    "generate": {"height": 32, "width": 32, "cfg_scale": 2.0, "codes": CODES, "text": TEXT},
    "edit": {"codes": CODES},
    "understand": {"text": TEXT},
    "interleave": {"height": 32, "width": 32, "max_frames": 2, "codes": CODES, "text": TEXT},
    "decode": {"turbo_steps": 2, "base_steps": 3},
    "eos_token_id": 3,
}


def make_tiny_model(folder: Path, golden: Path) -> Path:
    """Writes the directory; `golden`: the directory of recorded numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("image_tokenizer", "decoder", "decoder-turbo", "vae"):
        shutil.copytree(golden / name, folder / name, ignore=shutil.ignore_patterns("*.png", "tokens.json"))
    settings = json.loads((golden / "image_tokenizer" / "preprocessor_config.json").read_text())
    settings |= {
        "size_factor": 32,
        "understand_min_pixels": 1000,
        "understand_max_pixels": 1100,
        "understand_max_pixels_multi": 1100,
        "edit_max_cells": 1,
        "edit_scale": True,
    }
    (folder / "image_tokenizer" / "preprocessor_config.json").write_text(json.dumps(settings))
    text = train_tokenizer(WORDS * 2, 480)
    text.save(folder / "tokenizer.json")
    recorded = BackboneConfig.from_json(golden / "backbone" / "config.json")
    config = dataclasses.replace(recorded, vocab_size=480 + 64, image_token_offset=480, num_hidden_layers=2)
    save_backbone(Backbone(config, generator=torch.Generator().manual_seed(3)), folder)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return folder
