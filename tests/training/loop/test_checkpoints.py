"""Checkpoints under attack: kills at random moments, damaged files, full disks, other configurations."""

from __future__ import annotations

import errno
import random
import resource
import shutil
import signal
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp

from llada_uni.errors import UserError
from llada_uni.training.loop import checkpoints
from llada_uni.training.loop.checkpoints import Checkpoints, checkpoint_of, complete_checkpoints, damage, load_full
from llada_uni.training.loop.ranks import Processes
from tests.training.helpers.runs import fit, rows
from tests.training.helpers.together import start, together

ALONE = Processes()


def test_a_run_killed_again_and_again_gives_the_same_losses(tmp_path):
    loop = {"steps": 60, "save_every": 1}  # most of the time goes into saving, so most kills hit a save
    fit(ALONE, "line", tmp_path / "whole", {"steps": 60, "log_every": 1})
    rng, root, cut_saves = random.Random(0), tmp_path / "cut" / "checkpoints", 0
    for kill in range(6):
        process = start(_fit, tmp_path / "cut", loop)
        before = _newest(root)
        while _newest(root) == before:  # it has got under way
            assert process.is_alive()
            process.join(0.005)
        process.join(rng.random() * 0.1)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL and _newest(root) < f"step-{60:08}", f"kill {kill} came too late"
        cut_saves += any(root.glob(".step-*.writing"))
    assert cut_saves >= 1
    fit(ALONE, "line", tmp_path / "cut", loop)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    whole, cut = load_full(tmp_path / "whole"), load_full(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def _newest(root):
    return max((path.name for path in root.glob("step-*")), default="")


def _fit(out, loop):
    fit(ALONE, "line", out, loop)


def test_it_holds_everything_and_keeps_the_newest(tmp_path):
    fit(ALONE, "line", tmp_path, {"save_every": 1, "keep": 3})
    found = complete_checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in found] == ["step-00000004", "step-00000005", "step-00000006"]
    meta = checkpoints.read_json(found[-1] / "meta.json")
    assert meta["recipe"] == {"stage": "line"} and meta["fingerprint"]["width"] == 6
    assert meta["readers"] == {str(number): {"position": 6 * (1 + number)} for number in range(4)}
    assert set(meta["files"]) == {".metadata", "__0_0.distcp"}


@pytest.mark.parametrize("harm", ["no meta", "half a file", "a file less", "bad meta", "garbage of the right size"])
def test_the_last_complete_one_is_found_and_damage_is_told(tmp_path, harm):
    fit(ALONE, "line", tmp_path / "whole")
    fit(ALONE, "line", tmp_path / "cut", {"save_every": 2}, stop_after=4)
    last = tmp_path / "cut" / "checkpoints" / "step-00000004"
    part = last / "__0_0.distcp"
    if harm == "no meta":
        (last / "meta.json").unlink()
    elif harm == "half a file":
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    elif harm == "a file less":
        part.unlink()
    elif harm == "bad meta":
        (last / "meta.json").write_text("{")
    else:
        part.write_bytes(b"\0" * part.stat().st_size)
    with pytest.warns(UserWarning, match="ignoring the checkpoint .*step-00000004"):
        fit(ALONE, "line", tmp_path / "cut", {"save_every": 2})
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert damage(last) is None  # written again on the way


def test_nothing_damaged_is_removed_before_a_good_one_exists(tmp_path):
    fit(ALONE, "line", tmp_path, stop_after=2)
    (tmp_path / "checkpoints" / "step-00000002" / "meta.json").unlink()
    with pytest.warns(UserWarning, match=r"no meta\.json"):
        fit(ALONE, "line", tmp_path, stop_after=1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]


def test_when_no_checkpoint_can_be_read_nothing_is_trained(tmp_path):
    fit(ALONE, "line", tmp_path, stop_after=2)
    part = tmp_path / "checkpoints" / "step-00000002" / "__0_0.distcp"
    part.write_bytes(b"\0" * part.stat().st_size)
    with warnings.catch_warnings(), pytest.raises(UserError, match=r"no checkpoint .* can be read"):
        warnings.simplefilter("ignore")
        fit(ALONE, "line", tmp_path)


def test_a_checkpoint_of_another_configuration_is_refused_and_kept(tmp_path):
    fit(ALONE, "line", tmp_path, stop_after=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"ema \(True there, False here\), width \(6 there, 7 here\)"):
        fit(ALONE, "line", tmp_path, {"ema": 0.0}, width=7)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path, monkeypatch):
    fit(ALONE, "line", tmp_path, stop_after=2)
    real = dcp.FileSystemWriter.write_data

    def full(self, plan, planner):
        real(self, plan, planner)  # something has been written already
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", full)
    with pytest.raises(UserError, match=r"step 3 .*No space left on device; .*step-00000002 is intact"):
        fit(ALONE, "line", tmp_path, {"save_every": 1})
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert fit(ALONE, "line", tmp_path)["finished"]


def _full_on_rank_1(processes, out):
    real = dcp.FileSystemWriter.write_data

    def write(self, plan, planner):
        if processes.rank == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, plan, planner)

    dcp.FileSystemWriter.write_data = write
    try:
        fit(processes, "line", out, {"save_every": 1}, {"shard": True})
    except UserError as error:
        return str(error)


def test_a_disk_that_is_full_for_one_process_is_told_by_all(tmp_path):
    fit(ALONE, "line", tmp_path, stop_after=2)
    told = together(2, _full_on_rank_1, tmp_path)
    assert told[0] == told[1] and "No space left on device" in told[0] and "step-00000002 is intact" in told[0]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_a_write_that_the_system_refuses_is_told_in_one_line(tmp_path):
    """The real thing: a limit on the size of files makes the writes themselves fail, as on a full disk."""
    fit(ALONE, "line", tmp_path, stop_after=2)
    process = start(_fit_with_small_files, tmp_path)
    process.join(60)
    assert process.exitcode == 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert damage(tmp_path / "checkpoints" / "step-00000002") is None


def _fit_with_small_files(out):
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
    try:
        fit(ALONE, "line", out, {"save_every": 1})
    except UserError as error:
        assert "could not be written" in str(error) and "is intact" in str(error) and "\n" not in str(error), error
    else:
        raise AssertionError("the limit was not felt")


def test_load_full_reads_a_run_a_step_or_a_checkpoint(tmp_path):
    fit(ALONE, "line", tmp_path, {"save_every": 3})
    last, folder = load_full(tmp_path), tmp_path / "checkpoints" / "step-00000003"
    third = load_full(tmp_path, step=3)
    assert torch.equal(third["model.0.weight"], load_full(folder)["model.0.weight"])
    assert not torch.equal(third["model.0.weight"], last["model.0.weight"])
    assert {name: tuple(tensor.shape) for name, tensor in last.items()} == {
        "model.0.weight": (6, 4),
        "model.0.bias": (6,),
        "model.2.weight": (1, 6),
        "model.2.bias": (1,),
    }
    with pytest.raises(UserError, match="no complete checkpoint of step 4"):
        load_full(tmp_path, step=4)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="no complete checkpoint"):
        checkpoint_of(tmp_path)


def test_what_a_killed_save_left_is_cleared_away(tmp_path):
    root = tmp_path / "checkpoints"
    (root / ".step-00000001.writing").mkdir(parents=True)
    (root / ".step-00000001.writing" / "half").write_text("x")
    (root / ".step-00000007.old").mkdir()
    Checkpoints(root, ALONE).save(1, {"model": {"w": torch.ones(2)}}, {})
    assert [path.name for path in root.iterdir()] == ["step-00000001"]
    assert load_full(root / "step-00000001")["w"].tolist() == [1.0, 1.0]
