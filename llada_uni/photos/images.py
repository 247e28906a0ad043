"""Class folders of small photographs, or tars of them, as arrays: the images that judge and suite work on.

A folder holds train-*.tar and test-*.tar whose members are .../CLASS/NAME.jpg. Training images are parted by their names as
`llada-uni data import` parts them, so that what recipes/photos holds back is held back here too.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from llada_uni.data.importers.splits import split_of
from llada_uni.errors import UserError
from llada_uni.files.weights import atomic_file

SIDE = 32
SPLITS = {"train": 0.96, "held": 0.04}  # as recipes/photos import them: the held-back images choose settings
ENVIRONMENT = "PHOTOS"
_GRID = 4
_USUAL = Path("../shared/data/cifar10")


class Photos(NamedTuple):
    """images uint8 [N, 32, 32, 3]; labels int64 [N], places in `classes`; names of the files; classes in alphabetical order."""

    images: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    classes: tuple[str, ...]

    def where(self, rows: np.ndarray) -> Photos:
        """The images of some rows: bool [N] or int64 [any]."""
        return Photos(self.images[rows], self.labels[rows], self.names[rows], self.classes)


def photos_folder() -> Path:
    """The folder that the variable PHOTOS names, else the usual one. UserError when it has no tars."""
    folder = Path(os.environ.get(ENVIRONMENT) or _USUAL)
    if not any(folder.glob("train-*.tar")) or not any(folder.glob("test-*.tar")):
        raise UserError(f"{folder} has no train-*.tar and test-*.tar; {ENVIRONMENT}=DIR says where the photographs are")
    return folder


def read_photos(folder: Path, kind: str) -> Photos:
    """All images of KIND-*.tar, by class and name. UserError when there are none, or one is not 32 x 32."""
    found: list[tuple[str, str, np.ndarray]] = []
    for tar in sorted(folder.glob(f"{kind}-*.tar")):
        with tarfile.open(tar) as file:
            for member in file:
                content = file.extractfile(member) if member.isfile() and member.name.endswith(".jpg") else None
                if content is None:
                    continue
                image = np.asarray(Image.open(io.BytesIO(content.read())).convert("RGB"))
                if image.shape != (SIDE, SIDE, 3):
                    raise UserError(f"{tar}: {member.name} is {image.shape[1]} x {image.shape[0]}, expected {SIDE} x {SIDE}")
                found.append((PurePosixPath(member.name).parent.name, member.name, image))
    if not found:
        raise UserError(f"there are no images in {folder}/{kind}-*.tar")
    found.sort(key=lambda one: one[:2])
    classes = tuple(sorted({one[0] for one in found}))
    labels = np.array([classes.index(one[0]) for one in found])
    return Photos(np.stack([one[2] for one in found]), labels, np.array([one[1] for one in found]), classes)


def parted(photos: Photos) -> dict[str, Photos]:
    """The training images as "train" and "held"."""
    splits = np.array([split_of(str(PurePosixPath(name).with_suffix("")), SPLITS) for name in photos.names])
    return {split: photos.where(splits == split) for split in SPLITS}


def kept_photos(folder: Path, cache: Path) -> dict[str, Photos]:
    """train, held and test; read from the file `cache` where it is and whole, else made and kept there."""
    splits = (*SPLITS, "test")
    if cache.is_file():
        with np.load(cache) as file:
            if all(_key(split, field) in file.files for split in splits for field in Photos._fields):
                return {split: _stored(file, split) for split in splits}
    sets = parted(read_photos(folder, "train")) | {"test": read_photos(folder, "test")}
    arrays = {_key(split, field): np.asarray(value) for split, one in sets.items() for field, value in one._asdict().items()}
    with atomic_file(cache) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return sets


def _key(split: str, field: str) -> str:
    return f"{split}_{field}"


def _stored(file: Mapping[str, np.ndarray], split: str) -> Photos:
    images, labels, names, classes = (file[_key(split, field)] for field in Photos._fields)
    return Photos(images, labels, names, tuple(classes.tolist()))


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in 0..1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255


def thumbnail(image: Image.Image) -> np.ndarray:
    """float32 [48]: mean colors of a 4 x 4 grid, 0..1: how an image is laid out."""
    return np.asarray(image.convert("RGB").resize((_GRID, _GRID), Image.Resampling.BOX), np.float32).ravel() / 255


def shrunk(image: Image.Image) -> np.ndarray:
    """An image of any size as the judge sees it, uint8 [32, 32, 3]: every pixel the mean of what it covers."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))
