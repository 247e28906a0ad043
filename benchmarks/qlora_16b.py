"""Fine-tuning the 16 B backbone on a machine of 24 GiB without a GPU: adapters over int4 experts (QLoRA), memory and seconds.

    python -m benchmarks.qlora_16b --dir DIR [--layers 20] [--format int4] [--rank 4] [--steps 5] [--keep] [--quick]
        [--json FILE] [--threads N]

A model of the released shape with random quantized weights is written (8 GB at 20 layers), and the recipe of a LoRA run is
trained on it: a step is one packed sequence of 512 positions, the data eight records that come again. A process of its own, so
that its peak resident memory is its own (pages of the mapped model file included). What must hold: the loss of the records
with fixed masks falls, the peak stays below 18 GiB. --quick: three layers with 64 experts.
"""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.quantized_16b import in_own_process, layers_of, peak_gib
from benchmarks.random_quantized import write_random_quantized
from llada_uni.backbone.quantized_formats import make_scheme
from llada_uni.config import BackboneConfig
from llada_uni.data.kinds import CONTEXT, TEXT
from llada_uni.data.shards import Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.text.tokenizer import train_tokenizer

LENGTH, RECORDS, RECORD_TOKENS = 512, 8, 96
ALLOWED_GIB = 18.0


def config_of(layers: int, quick: bool) -> BackboneConfig:
    config = dataclasses.replace(BackboneConfig.released_16b(), num_hidden_layers=layers)
    return dataclasses.replace(config, num_experts=64, vocab_size=4096, image_token_offset=2048) if quick else config


def write_tokens(folder: Path, config: BackboneConfig) -> None:
    """Eight records of random text tokens, a third of each given."""
    folder.mkdir(parents=True)
    text = train_tokenizer(["eight records"], 400)
    text.save(folder / "tokenizer.json")
    rng, records = np.random.default_rng(0), []
    for _ in range(RECORDS):
        ids = rng.integers(300, 400, RECORD_TOKENS).astype(np.int32)
        kinds = np.where(np.arange(RECORD_TOKENS) < RECORD_TOKENS // 3, CONTEXT, TEXT).astype(np.int8)
        records.append(Record(ids, kinds, "text"))
    write_shard(folder / shard_name(0), records)
    facts: dict[str, Any] = {
        "image_token_offset": config.image_token_offset,
        "codebook_size": config.vocab_size - config.image_token_offset,
        "text_tokenizer": "",
        "image_tokenizer": "",
    }
    write_manifest(folder, [TokenShard(folder / shard_name(0))], facts)


def train_phase(where: Path, rank: int, steps: int, rate: float = 2e-3) -> dict[str, Any]:
    """Nats a masked token in each step, and of all records with the same masks before and after; seconds of a step (the first
    left out), resident GiB before the first step."""
    from llada_uni.training.loop.ranks import Processes
    from llada_uni.training.loop.trainer import run
    from llada_uni.training.recipes.recipe import Recipe

    recipe = Recipe.from_plain({
        "stage": "backbone",
        "out": str(where / "run"),
        "loop": {
            "steps": steps, "lr": rate, "schedule": "constant", "warmup": 1, "weight_decay": 0.0, "log_every": 1,
            "save_seconds": 0.0, "tensorboard": False, "prefetch": 1,
        },
        "parallel": {"activation_checkpointing": True},
        "options": {
            "init": str(where / "model"), "data": {str(where / "tokens"): 1.0}, "quantization": "stored",
            "frozen_dtype": "bfloat16", "lora": {"rank": rank, "alpha": 2 * rank}, "sequences": 1, "length": LENGTH,
            "masking": {"objective": "two_stream", "rates": [0.5, 0.5]}, "weighting": "none", "balance": 0.0,
            "chunk": 128, "heldout": str(where / "tokens"), "heldout_samples": RECORDS,
        },
    })  # fmt: skip
    stage = recipe.options.build(Processes(), recipe.seed)
    built = peak_gib()
    before = stage.evaluate(0)["loss"]
    # One step less than asked for: the export, which rounds every expert again, is not what is measured here.
    run(stage, recipe.loop, recipe.out, recipe.seed, recipe.parallel, stop_after=steps - 1)
    rows = [json.loads(line) for line in (recipe.out / "log.jsonl").read_text().splitlines()]
    seconds = [later["seconds"] - earlier["seconds"] for earlier, later in pairwise(rows)]
    return {
        "losses": [row["nll/text"] for row in rows],
        "before": before,
        "after": stage.evaluate(steps)["loss"],
        "step": sorted(seconds)[len(seconds) // 2],
        "built": built,
        "trained": sum(weight.numel() for weight in stage.parameters() if weight.requires_grad),
        "checkpoint": sum(file.stat().st_size for file in (recipe.out / "checkpoints").rglob("*") if file.is_file()),
    }


def measure(where: Path, config: BackboneConfig, format: str, rank: int, steps: int, rate: float = 2e-3) -> list[common.Row]:
    """All phases, with their files in `where`."""
    scheme, size = make_scheme(format), f"{config.num_hidden_layers} layers, {format}"
    common.progress("writing random quantized weights")
    in_own_process(write_random_quantized, where / "model", config, scheme)
    write_tokens(where / "tokens", config)
    common.progress(f"training adapters of rank {rank} for {steps - 1} steps of {LENGTH} positions")
    found, seconds, peak = in_own_process(train_phase, where, rank, steps, rate)
    first, last = found["before"], found["after"]
    memory = {"allowed": ALLOWED_GIB, "built": found["built"]}
    more = {"losses": found["losses"], "trained": found["trained"], "rank": rank}
    return [
        common.Row(f"QLoRA, peak memory, {size}", "", "GiB", peak, more=memory),
        common.Row(f"QLoRA, a step of {LENGTH} positions, {size}", "", "s", found["step"]),
        common.Row(f"QLoRA, loss, fixed masks, {size}", "before training", "nats", last, first, first / last, more),
        common.Row(f"QLoRA, checkpoint, {size}", "", "GB", found["checkpoint"] / 1e9, more={"seconds": seconds}),
    ]


def main(given: list[str] | None = None) -> int:
    parser = common.arguments(
        __doc__,
        dir={"type": Path, "help": "where the files go (default: a temporary directory)"},
        layers={"type": int, "default": None, "help": "layers of the network (default 20: 16 B parameters)"},
        format={"choices": ("int4", "int8", "float8"), "default": "int4"},
        rank={"type": int, "default": 4, "help": "of the adapters"},
        steps={"type": int, "default": 6, "help": "of the schedule; one less is trained"},
        keep={"action": "store_true", "help": "leave the files"},
    )
    options = common.start(parser, given)
    layers = layers_of(options)
    with common.working_folder(options, "qlora-") as where:
        case = (where, config_of(layers, options.quick), options.format, options.rank, options.steps)
        return common.run(lambda: measure(*case), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
