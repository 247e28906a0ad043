"""The tokenizer stages on two processes: the same losses as on one, whether weights are whole or sharded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llada_uni.training.decoder.vae import VaeOptions, VaeSizes
from llada_uni.training.loop.parallel import ParallelOptions
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.trainer import LoopOptions, run
from llada_uni.training.tokenizer.picture_batches import PictureOptions
from tests.training.helpers.together import together
from tests.training.tokenizer import test_quantizer, test_siglip
from tests.world.training import test_patch_tokenizer


def options_of(stage: str):
    return {
        "siglip": lambda: test_siglip.tiny_options(),
        "quantizer": lambda: test_quantizer.tiny_options(features_first=3),
        "patch_tokenizer": lambda: test_patch_tokenizer.tiny_options(features_first=3),
        "vae": lambda: VaeOptions(
            pictures=PictureOptions(side=32, count=2, shrunk=0.0, noisy=False),
            sizes=VaeSizes(channels=[8, 16], latent=4, groups=4),
            crop=16,
            evaluate_pictures=4,
        ),
    }[stage]()


def losses(processes: Processes, stage: str, out: str, shard: bool) -> list[float]:
    torch.set_num_threads(1)
    loop = LoopOptions(steps=8, micro_batches=2, lr=1e-3, warmup=2, log_every=1, tensorboard=False)
    run(options_of(stage).build(processes, 0), loop, out, 0, ParallelOptions(shard=shard), processes)
    return [json.loads(line)["loss"] for line in Path(out, "log.jsonl").read_text().splitlines()]


SLOW = [("quantizer", False), ("siglip", True), ("patch_tokenizer", True), ("vae", True)]


@pytest.mark.parametrize(
    ("stage", "shard"), [("quantizer", True), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_two_processes_equal_one(tmp_path, stage, shard):
    alone = losses(Processes(), stage, str(tmp_path / "one"), False)
    both = together(2, losses, stage, str(tmp_path / "two"), shard)
    assert len(alone) == 8 and both[0] == pytest.approx(alone, rel=1e-4)
