"""Oracle and engine on the same image, in one process: evaluations, seconds, and their ratio.

    python -m benchmarks.engine_vs_oracle [--codes 1024] [--quick] [--dtype float32] [--threads N]
        [--model DIR] [--json FILE]

Both generate the codes of one image with simple guidance, greedily, from the same prompt, and must give the
same tokens. Without a model directory the backbone has random weights and the size of the small model that is
shipped.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from llada_uni.backbone import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.generation import engine, oracle
from llada_uni.generation.settings import Generation, Guidance, Settings

PROMPT_LENGTH, BRANCH_LENGTH = 40, 28  # a short request with its image header, and the same without its words


def random_backbone(codes: int) -> Backbone:
    """About 6 M parameters, float32, random values from a seed; its context holds `codes`."""
    config = BackboneConfig(
        vocab_size=2048,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=16,
        num_experts_per_tok=2,
        moe_intermediate_size=128,
        image_token_offset=1024,
        n_group=1,
        topk_group=1,
        max_position_embeddings=max(2048, codes + 256),
        initializer_range=0.05,
    )
    return Backbone(config, generator=torch.Generator().manual_seed(0)).eval()


def timed(generate: Any, *arguments: Any) -> tuple[Generation, float]:
    start = time.perf_counter()
    result = generate(*arguments)
    return result, time.perf_counter() - start


def compare(model: Backbone, codes: int, block_length: int, steps: int) -> dict[str, Any]:
    """One image on both sides. Raises AssertionError when they differ."""
    config = model.config
    size = config.image_token_offset
    draw = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, size - 1, (PROMPT_LENGTH,), generator=draw).tolist()
    uncond = torch.randint(0, size - 1, (BRANCH_LENGTH,), generator=draw).tolist()
    settings = Settings(
        mask_id=size - 1,
        block_length=block_length,
        steps=steps,
        gen_length=codes,
        allowed=range(size, config.vocab_size),
        guidance=Guidance.simple(2.0),
    )
    branches = {"uncond": uncond}
    engine.generate(model, prompt, Settings(mask_id=size - 1, gen_length=32, steps=2), None)  # warm up
    fast, fast_seconds = timed(engine.generate, model, prompt, settings, branches)
    slow, slow_seconds = timed(oracle.generate, model, prompt, settings, branches)
    assert fast.tokens == slow.tokens, "engine and oracle differ"
    return {
        "codes": codes,
        "block_length": block_length,
        "steps": steps,
        "guidance": "simple, scale 2.0",
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": str(model.lm_head.weight.dtype),
        "device": str(model.lm_head.weight.device),
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "same_tokens": True,
        "oracle": {"evaluations": slow.evaluations, "seconds": slow_seconds},
        "engine": {"evaluations": fast.evaluations, "seconds": fast_seconds},
        "ratio": slow_seconds / fast_seconds,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, default=1024, help="codes of the image (default 1024, 32 x 32)")
    parser.add_argument("--block-length", type=int, default=32, help="places a block (default 32)")
    parser.add_argument("--steps", type=int, default=8, help="steps a block (default 8)")
    parser.add_argument("--quick", action="store_true", help="128 codes only")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--model", type=Path, help="a model directory in place of random weights")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    codes = 128 if options.quick else options.codes
    try:
        if options.model is None:
            model = random_backbone(codes)
        else:
            from llada_uni.checkpoint.load import load_backbone

            model = load_backbone(options.model, "cpu", torch.float32).eval()
        row = compare(model.to(getattr(torch, options.dtype)), codes, options.block_length, options.steps)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{codes} codes, blocks of {row['block_length']}, {row['steps']} steps, {row['guidance']}, "
        f"{row['parameters'] / 1e6:.1f} M parameters, {row['dtype']}, {row['threads']} threads"
    )
    for name in ("oracle", "engine"):
        print(f"  {name}: {row[name]['evaluations']:4d} evaluations  {row[name]['seconds']:8.2f} s")
    print(f"  same tokens, ratio {row['ratio']:.1f}")
    if options.json:
        options.json.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
