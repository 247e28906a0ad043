"""What the tests of the decoder stages on two processes run in each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llada_uni.training.decoder.distill import DistillOptions
from llada_uni.training.decoder.latents import LatentOptions
from llada_uni.training.decoder.stage import DecoderOptions
from llada_uni.training.loop.parallel import ParallelOptions
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from tests.training.tiny_decoder import SIZES

LOOP = LoopOptions(steps=3, micro_batches=2, lr=1e-3, warmup=1, log_every=1, evaluate_every=3, tensorboard=False)


def losses(
    processes: Processes, name: str, model: str, latents: LatentOptions, out: str, parallel: ParallelOptions
) -> list[Any]:
    """The losses of a short run from `model`, and the last evaluation; with sharding each process reads its own part."""
    common = {"latents": latents, "sizes": SIZES, "low_memory": parallel.shard, "batch": 2}
    if name == "decoder":
        stage = DecoderOptions(**common, init=model, position_probes=0.1, evaluate=2).build(processes, 0)
    else:
        stage = DistillOptions(**common, base=model).build(processes, 0)
    run(stage, LOOP, out, parallel=parallel, processes=processes)
    rows = [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in row if name == "loss" or name.startswith("eval/")]
