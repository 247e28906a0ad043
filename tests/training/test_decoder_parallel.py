"""The decoder stages on two processes: sharded from the files on, the same losses and the same export as on one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from llada_uni.training.decoder.latents import prepare
from llada_uni.training.loop.parallel import ParallelOptions
from llada_uni.training.loop.ranks import Processes
from tests.training.decoder_runs import losses
from tests.training.helpers.together import together
from tests.training.tiny_decoder import latent_options, make_tiny_decoder


@pytest.mark.parametrize(("stage", "part"), [("decoder", "decoder"), ("distill", "decoder-turbo")])
def test_two_sharded_processes_equal_one(golden, tmp_path, stage, part):
    model = str(make_tiny_decoder(tmp_path / "model", golden))
    latents = latent_options(model, tmp_path / "latents")
    prepare(latents)
    alone = losses(Processes(), stage, model, latents, str(tmp_path / "one"), ParallelOptions())
    both = together(2, losses, stage, model, latents, str(tmp_path / "two"), ParallelOptions(shard=True))
    assert len(alone) >= 4 and both[0] == pytest.approx(alone, rel=1e-4)
    first, second = (load_file(tmp_path / run / "model" / part / "model.safetensors") for run in ("one", "two"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-4, rtol=0)
