"""Puts trained parts together as one model directory in the released layout.

    python -m llada_uni.training.assemble --runs runs --out models/world

Weights are written in float16: at these sizes its ten bits of mantissa lose less than bfloat16's seven.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from llada_uni.backbone.model import Backbone
from llada_uni.checkpoint.files import write_json
from llada_uni.checkpoint.load import save_backbone
from llada_uni.decoder.model import save_transformer, save_vae
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.text import TextTokenizer
from llada_uni.training.backbone import BLOCK, small_config
from llada_uni.training.decoder import Conditioned
from llada_uni.training.tokenizer import SIDE

# Chosen on the seen split, never on held-out samples (docs/log.md).
CODES = {"steps": 16, "threshold": 0.98}
GENERATION = {
    "block_length": BLOCK,
    "generate": {
        "height": 2 * SIDE,
        "width": 2 * SIDE,
        "cfg_scale": 2.0,
        "codes": CODES,
        "text": {"steps": 32, "max_tokens": 96},
    },
    "edit": {"text_scale": 1.5, "image_scale": 0.0, "rescale": 0.0, "codes": CODES},
    "understand": {"text": {"steps": 32, "max_tokens": 64}},
    "interleave": {
        "height": 2 * SIDE,
        "width": 2 * SIDE,
        "max_frames": 4,
        "first_scale": 2.0,
        "text_scale": 1.0,
        "image_scale": 0.0,
        "rescale": 0.0,
        "codes": CODES,
        "text": {"steps": 32, "max_tokens": 96},
    },
    "decode": {"decoder": "turbo", "turbo_steps": 8, "base_steps": 50},
}


def _trained(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path / "checkpoint.pt", weights_only=True)
    print(f"{path}: step {state['step']}")
    return {k.removeprefix("model."): v for k, v in state["modules"].items() if k.startswith("model.")}


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("models/world"))
    args = parser.parse_args()
    runs, out, half = args.runs, args.out, torch.float16
    out.mkdir(parents=True, exist_ok=True)

    text = TextTokenizer.from_file(runs / "tokenizer.json")
    offset = json.loads((runs / "records.json").read_text())["image_token_offset"]
    backbone = Backbone(small_config(text, offset))
    backbone.load_state_dict(_trained(runs / "backbone"))
    save_backbone(backbone, out, dtype=half)
    shutil.copyfile(runs / "tokenizer.json", out / "tokenizer.json")
    write_json(out / "generation_config.json", GENERATION)

    ImageTokenizer.from_pretrained(runs / "tokenizer/image_tokenizer").save_pretrained(out / "image_tokenizer", half)
    for run_name, part in (("decoder", "decoder"), ("turbo", "decoder-turbo")):
        if not (runs / run_name / "checkpoint.pt").exists():
            print(f"{run_name} is not trained yet: {part}/ left out")
            continue
        model = Conditioned()
        model.load_state_dict(_trained(runs / run_name))
        save_transformer(model.transformer, out / part, half)
        if run_name == "decoder":
            model.sigvq.save_pretrained(out / "image_tokenizer/sigvq_embedding.pt", half)
    save_vae(AutoencoderKL.from_pretrained(runs / "vae/vae"), out / "vae", half)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
