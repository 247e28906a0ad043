"""Two classes of made-up photographs in tars, and a judge trained on them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.photos.judge import train

COLORS = {"bird": (200, 60, 40), "deer": (40, 90, 200)}


def colored(name: str, rng: np.random.Generator) -> np.ndarray:
    """Noise around the color of a class, uint8 [32, 32, 3]."""
    return np.clip(np.array(COLORS[name]) + rng.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)


def write_tar(path: Path, split: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            name = sorted(COLORS)[i % 2]
            buffer = io.BytesIO()
            Image.fromarray(colored(name, rng)).save(buffer, "JPEG", quality=95)
            entry = tarfile.TarInfo(f"{split}/{name}/{i:04}.jpg")
            entry.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(entry, buffer)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_tar(folder / "train-00.tar", "train", 160, 0)
    write_tar(folder / "train-01.tar", "more", 160, 1)
    write_tar(folder / "test-00.tar", "test", 40, 2)
    return folder


@pytest.fixture(scope="session")
def judge_folder(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("judge")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(photos, out, epochs=6, widths=(16, 16, 16), batch_size=16)
    torch.set_num_threads(threads)
    return out
