"""Two processes against one: the same losses, weights and checkpoints, sharded or not; each reads only its part of a model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.load import load_backbone, save_backbone
from llada_uni.errors import UserError
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.loop.parallel import ParallelOptions, full_state, is_sharded, parallelize, setup_processes, shard
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.sharded_load import load_sharded_backbone
from tests.training.helpers.runs import fit, loss_of, rows
from tests.training.helpers.stages import STAGES, TINY, Experts, Line
from tests.training.helpers.together import together

ALONE = Processes()
WAYS = {
    "whole": {},
    "sharded": {"shard": True},
    "sharded, recomputing": {"shard": True, "activation_checkpointing": True},
}


def _runs(processes, root):
    """Every case with several processes in one start: each stage, each way, and runs that go on elsewhere."""
    for name in STAGES:
        for way, parallel in WAYS.items():
            fit(processes, name, root / name / way, {"evaluate_every": 3}, parallel)
    fit(processes, "experts", root / "from two", {}, WAYS["sharded"], stop_after=3)
    fit(processes, "experts", root / "from one", {}, WAYS["sharded"])
    fit(processes, "line", root / "line from two", {}, {}, stop_after=2)
    for way in ("whole", "sharded"):
        fit(processes, "experts", root / "muon" / way, {"optimizer": "muon"}, WAYS[way])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The runs of one process and of two, with runs that change in between; they are only compared below."""
    root = tmp_path_factory.mktemp("runs")
    for name in STAGES:
        fit(ALONE, name, root / name / "alone", {"evaluate_every": 3})
    fit(ALONE, "experts", root / "from one", {}, stop_after=3)
    fit(ALONE, "experts", root / "muon" / "alone", {"optimizer": "muon"})
    together(2, _runs, root)
    shutil.copytree(root / "from two", root / "from two, as saved")
    fit(ALONE, "experts", root / "from two")
    fit(ALONE, "line", root / "line from two")
    return root


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STAGES)
def test_two_processes_give_the_losses_of_one(root, name, way):
    one, two = rows(root / name / "alone"), rows(root / name / way)
    assert len(one) == len(two) == 8  # six steps and two evaluations
    for first, second in zip(one, two, strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STAGES)
def test_two_processes_export_the_weights_of_one(root, name, way):
    one, two = (load_file(root / name / path / "model" / "model.safetensors") for path in ("alone", way))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(load_full(root / name / way), two, rtol=0, atol=0)


@pytest.mark.parametrize("way", ["whole", "sharded"])
def test_muon_moves_cut_weights_as_whole_ones(root, way):
    """Experts that are shared out, and matrices that are cut into rows."""
    for first, second in zip(rows(root / "muon" / "alone"), rows(root / "muon" / way), strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-6)
    one, two = (load_file(root / "muon" / path / "model" / "model.safetensors") for path in ("alone", way))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_with_another_number_of_processes(root):
    alone = [row for row in rows(root / "experts" / "alone") if "loss" in row]
    for path in ("from two", "from one"):
        for first, second in zip(alone, rows(root / path), strict=True):
            assert first == pytest.approx(second, rel=1e-4, abs=1e-6)
    line = [row for row in rows(root / "line" / "alone") if "loss" in row]
    assert [row["loss"] for row in rows(root / "line from two")] == pytest.approx([row["loss"] for row in line], rel=1e-4)


def test_each_process_saves_its_own_part(root):
    saved = root / "from two, as saved" / "checkpoints" / "step-00000003"
    sizes = json.loads((saved / "meta.json").read_text())["files"]
    assert {"__0_0.distcp", "__1_0.distcp"} <= set(sizes)
    assert max(sizes["__0_0.distcp"], sizes["__1_0.distcp"]) < 1.5 * min(sizes["__0_0.distcp"], sizes["__1_0.distcp"])
    bias = load_full(saved)["model.model.layers.1.mlp.gate.expert_bias"]
    assert bias.abs().max() > 0  # a buffer, balanced with the load of all processes


def _gradients(stage):
    loss = loss_of(stage)
    loss.total.backward()
    return {name: weight.grad for name, weight in stage.named_parameters()}, stage.model.routers()[0].load.clone()


def test_recomputing_gives_the_same_gradients_and_counts_once():
    plain, recomputing = Experts(), Experts()
    parallelize(recomputing, ParallelOptions(activation_checkpointing=True), ALONE)
    runs = []
    for unit in recomputing.shard_units():
        unit.attention.register_forward_hook(lambda *_: runs.append(1))
    (expected, load), (found, load_again) = _gradients(plain), _gradients(recomputing)
    assert len(runs) == 2 * len(recomputing.shard_units())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert torch.equal(load, load_again) and load.sum() == 24 * 2
    assert recomputing.state_dict().keys() == plain.state_dict().keys()


class _FromFiles(Experts):
    """A backbone without values, filled from a model directory once it is sharded."""

    def __init__(self, processes, folder):
        super().__init__(processes)
        with torch.device("meta"):
            self.model = Backbone(TINY)
        self.folder = folder

    def materialize(self):
        self.read = load_sharded_backbone(self.model, self.folder)


def _load(processes, folder, replicate):
    stage = _FromFiles(processes, folder)
    parallelize(stage, ParallelOptions(shard=True, replicate=replicate), processes)
    assert is_sharded(stage) and all(isinstance(weight, DTensor) for weight in stage.parameters())
    loads = [router.load.sum().item() for router in stage.model.routers()]
    return stage.read, loads, full_state(stage, processes)


@pytest.mark.parametrize("layout", ["released", "stacked"])
def test_each_process_reads_its_part_of_a_model_and_nothing_else(tmp_path, layout):
    model = Backbone(TINY, generator=torch.Generator().manual_seed(9))
    for router in model.routers():
        router.expert_bias.normal_()
    save_backbone(model, tmp_path, layout)
    expected = {f"model.{name}": tensor for name, tensor in load_backbone(tmp_path).state_dict().items()}
    everything = sum(tensor.nbytes for tensor in expected.values())
    buffers = sum(buffer.nbytes for name, buffer in model.named_buffers() if name.endswith("expert_bias"))
    (first, loads, state), (second, _, nothing) = together(2, _load, tmp_path, 1)
    torch.testing.assert_close(state, expected, rtol=0, atol=0)
    assert loads == [0.0, 0.0] and nothing == {}
    assert first == second == (everything + buffers) // 2  # halves; only the small buffers are read by both


def test_hybrid_sharding_keeps_whole_copies_in_groups(tmp_path):
    model = Backbone(TINY, generator=torch.Generator().manual_seed(9))
    save_backbone(model, tmp_path)
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    reads = together(4, _load, tmp_path, 2)
    assert len({read for read, _, _ in reads}) == 1
    torch.testing.assert_close(reads[0][2], expected, rtol=0, atol=0)


def _low(processes):
    stage = Experts(processes)
    parallelize(stage, ParallelOptions(shard=True), processes, "bfloat16")
    kinds = {}
    layer = stage.model.model.layers[1]
    layer.attention.register_forward_hook(lambda module, *_: kinds.update(attention=module.dense.weight.dtype))
    layer.mlp.gate.register_forward_hook(lambda module, *_: kinds.update(router=module.weight.dtype))
    loss = loss_of(stage)
    loss.total.backward()
    kinds["kept"] = {tensor.dtype for weight in stage.parameters() for tensor in (weight, weight.grad)}
    return kinds, loss.total.item()


def test_bfloat16_sharded_keeps_weights_gradients_and_routers_in_float32():
    found = together(2, _low)
    plain = Experts()
    expected = loss_of(plain).total.item()
    for kinds, loss in found:
        assert kinds == {"attention": torch.bfloat16, "router": torch.float32, "kept": {torch.float32}}
        assert loss == pytest.approx(expected, rel=0.02)


def test_one_process_needs_no_launcher_and_ignores_sharding(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert setup_processes("cpu") == ALONE
    stage = Line()
    parallelize(stage, ParallelOptions(shard=True), ALONE)
    assert not is_sharded(stage)


def test_copies_must_divide_the_processes():
    with pytest.raises(UserError, match=r"replicate is 3; it must divide the number of processes, 4"):
        shard(Line(), ParallelOptions(shard=True, replicate=3), Processes(0, 4), "float32")
