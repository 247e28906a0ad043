"""A photo run that is killed, meets a bad image and fills the disk: it goes on to the numbers of one without faults."""

from __future__ import annotations

import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.training.loop.checkpoints import load_full
from llada_uni.training.loop.prefetch import seeded
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.recipes.recipe import Recipe, read_recipe, train
from tests.data.helpers import drawing, write_records
from tests.training.helpers.runs import rows
from tests.training.helpers.together import start

ROOT = Path(__file__).parents[2]
STEPS = 12


def photos(folder: Path) -> Path:
    """24 images of noise in different shapes, with captions."""
    folder.mkdir()
    rng, records = np.random.default_rng(0), []
    for number in range(24):
        pixels = rng.integers(0, 255, (rng.integers(30, 60), rng.integers(30, 60), 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        records.append(drawing(f"number {number}", f"{number}.png"))
    write_records(folder, records)
    return folder


def recipe(source: Path, out: Path, *changes: str) -> Recipe:
    loop = [f"loop.steps={STEPS}", "loop.save_every=1", "loop.log_every=1", "loop.tensorboard=false", "loop.warmup=2"]
    pictures = ["side=32", "count=4", "split=any", "heldout=''", f"source={source}"]
    sizes = "options.sizes={channels: [8, 16], layers: 1, latent: 4, groups: 4}"
    small = ["options.crop=16", "options.whole_from=8", "options.keep_shape=true", "loop.evaluate_every=6"]
    pictures = [f"options.pictures.{one}" for one in pictures]
    return read_recipe(ROOT / "recipes/photos/vae.yaml", [f"out={out}", *loop, *pictures, sizes, *small, *changes])


def run(source: Path, out: Path, largest_file: int = 0) -> None:
    torch.set_num_threads(1)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        with pytest.raises(UserError, match=r"could not be written.*is intact"):
            train(recipe(source, out))
    else:
        train(recipe(source, out))


def test_a_run_with_every_fault_ends_with_the_numbers_of_one_without(tmp_path):
    source, whole, cut = photos(tmp_path / "photos"), tmp_path / "whole", tmp_path / "cut"
    run(source, whole)

    killed = start(run, source, cut)
    while not (cut / "checkpoints" / "step-00000002").is_dir():
        assert killed.is_alive()
        time.sleep(0.01)
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL

    full = start(run, source, cut, 10_000)  # every write of a checkpoint fails, as on a full disk
    full.join()
    assert full.exitcode == 0

    names = [drawing_of(source, cut, step) for step in range(STEPS)]
    early = {name for step in range(4) for name in names[step]}
    hurt = source / f"{next(name for drawn in names for name in drawn if name not in early)}.png"  # drawn by a later step
    whole_file = hurt.read_bytes()
    hurt.write_bytes(whole_file[: len(whole_file) // 2])
    with pytest.raises(UserError, match=hurt.name):
        run(source, cut)
    saved = sorted(path.name for path in (cut / "checkpoints").glob("step-*"))
    assert "step-00000002" < saved[-1] < f"step-{STEPS:08}"
    hurt.write_bytes(whole_file)

    run(source, cut)
    assert rows(cut) == rows(whole)
    expected, found = load_full(whole), load_full(cut)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def drawing_of(source: Path, out: Path, step: int, *changes: str) -> list[str]:
    """The numbers of the images that a step draws."""
    drawn = recipe(source, out, *changes).options.build(Processes(), 0).batches.draw(seeded(0, step, 0).python)[1]
    return [picture.caption.split()[1] for picture in drawn]


def test_a_bad_image_is_left_out_and_listed_and_the_run_saves_before_it_ends(tmp_path):
    source = photos(tmp_path / "photos")
    late = ["loop.save_every=0", "loop.evaluate_every=0", "options.keep_shape=false", "loop.steps=60"]
    early = {name for step in range(3) for name in drawing_of(source, tmp_path, step, *late)}
    hurt = next(f"{number}.png" for number in range(24) if str(number) not in early)
    (source / hurt).write_bytes(b"no image")
    with pytest.raises(UserError, match=hurt):
        train(recipe(source, tmp_path / "stop", *late))
    (saved,) = (tmp_path / "stop" / "checkpoints").glob("step-*")
    assert saved.name > "step-00000002" and not (tmp_path / "stop" / "bad-data.txt").exists()
    train(recipe(source, tmp_path / "stop", *late, "options.pictures.on_bad=skip"))  # goes on
    (line,) = (tmp_path / "stop" / "bad-data.txt").read_text().splitlines()
    assert hurt in line
    bounded = ["options.pictures.on_bad=skip", "options.pictures.max_bad=0"]
    with pytest.raises(UserError, match="more than the 0 allowed"):
        train(recipe(source, tmp_path / "none", *late, *bounded))
