"""Batches of pictures for the stages that learn from pixels: image tokenizer and autoencoder.

Pictures come from a source of llada_uni.data.pictures (rendered scenes or a folder of records) as squares of one side.
B pictures, S side in pixels.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from llada_uni.data.pictures import MOST_BAD, Picture, PictureSource, open_pictures
from llada_uni.data.records import BadRecords, OnBad
from llada_uni.errors import UserError
from llada_uni.files import shipped
from llada_uni.options import Share, options
from llada_uni.training.loop.stage import Generators

EVALUATION_SEED = 20260420  # held-out pictures are the same in every evaluation of every stage


@options
class PictureOptions:
    """source: images of a plug-in by name, a folder of records, or a dataset in its own format ("folder:birds/"); side: pixels;
    count: images per micro-batch; split: train | heldout | any.

    shrunk: the part of the pictures that is drawn at twice the side and scaled down, as a picture that the decoder has
    drawn comes back; noisy: blur, noise and small shifts, so that such a picture is read like a rendered one.
    heldout: another source for the evaluation, "" for the held-out part of `source`; mirrored: share of the training images
    that are mirrored (their text must not say left or right); moved: pixels by which a training image is moved at most,
    mirrored at the border.
    on_bad: an image or record that cannot be used ends the run ("stop"; a checkpoint is saved first) or is left out and listed
    in bad-data.txt ("skip"), at most max_bad of them.
    """

    source: str = shipped.MODEL
    side: int = 64
    count: int = 16
    split: str = "any"
    shrunk: float = 0.5
    noisy: bool = True
    heldout: str = ""
    mirrored: Share = 0.0
    moved: int = 0
    on_bad: OnBad = "stop"
    max_bad: Annotated[int, Field(ge=0)] = MOST_BAD

    def __post_init__(self) -> None:
        if not 0 <= self.moved < self.side:
            raise UserError(f"pictures.moved is {self.moved}; allowed: 0 to {self.side - 1}, less than the side")


class PictureBatches:
    """Draws batches. The sources are opened when the first batch is asked for."""

    def __init__(self, options: PictureOptions, need: str | None = None, cell: int = 0) -> None:
        """need: "caption" or "questions" leaves out the pictures of a folder that have none. cell: pictures keep about their
        shape, those of a batch the same (data/pictures.py); 0: squares. UserError for cells with pictures drawn at twice the
        side."""
        if cell and options.shrunk:
            raise UserError("keep_shape needs pictures.shrunk: 0 (pictures drawn at twice the side are squares)")
        self.options, self.need, self.cell = options, need, cell
        self.bad = BadRecords(options.on_bad, options.max_bad)
        self._opened: dict[tuple[str, int, str], PictureSource] = {}

    def draw(self, rng: random.Random, count: int | None = None, split: str | None = None) -> tuple[Tensor, list[Picture]]:
        """Pictures float32 [B, 3, S, S] (with cells, [B, 3, H, W]) in -1..1 with their captions and questions."""
        options = self.options
        count, split = count or options.count, split or options.split
        large = sum(rng.random() < options.shrunk for _ in range(count))
        pictures = self._source(options.side, split).draw(rng, count - large)
        arrays = [picture.image for picture in pictures]
        if large:
            twice = self._source(2 * options.side, split).draw(rng, large)
            arrays += [shrink(picture.image, options.side) for picture in twice]
            pictures = [*pictures, *twice]
        if split != "heldout":
            arrays = [varied(array, rng, options.mirrored, options.moved) for array in arrays]
        return to_images(arrays), pictures

    def sample(self, rng: random.Random, count: int) -> list[Picture]:
        """Pictures as the source gives them, for their texts."""
        return self._source(self.options.side, self.options.split).draw(rng, count)

    def _source(self, side: int, split: str) -> PictureSource:
        source = self.options.source
        if split == "heldout" and self.options.heldout:
            source, split = self.options.heldout, "any"
        key = (source, side, split)
        if key not in self._opened:
            self._opened[key] = open_pictures(source, side, split, self.need, self.bad, self.cell)
        return self._opened[key]


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """A picture uint8 [H, W, 3] scaled to `side`, by the filter that the image tokenizer's preprocessing uses."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def to_images(arrays: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures [H, W, 3] of one size -> float32 [B, 3, H, W] in -1..1."""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def varied(image: np.ndarray, rng: random.Random, mirrored: float, moved: int) -> np.ndarray:
    """An image uint8 [H, W, 3], mirrored with probability `mirrored` and moved by up to `moved` pixels each way."""
    if mirrored and rng.random() < mirrored:
        image = image[:, ::-1]
    if moved:
        down, right = (rng.randint(0, 2 * moved) for _ in range(2))
        padded = np.pad(image, ((moved, moved), (moved, moved), (0, 0)), mode="reflect")
        image = padded[down : down + image.shape[0], right : right + image.shape[1]]
    return image


def degrade(images: Tensor, generators: Generators) -> Tensor:
    """Small shifts, blur, gain and noise on pictures [B, 3, H, W] in -1..1; one draw of each for the whole batch."""
    out, rng = images, generators.python
    if rng.random() < 0.5:
        out = out.roll((rng.choice((-1, 0, 1)), rng.choice((-1, 0, 1))), dims=(2, 3))
    if rng.random() < 0.4:
        soft = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        out = torch.lerp(out, soft, rng.random())
    if rng.random() < 0.5:
        out = out * (1 + 0.1 * (rng.random() - 0.5)) + 0.1 * (rng.random() - 0.5)
    noise = torch.empty_like(out).normal_(generator=generators.torch)
    return (out + noise * 0.12 * rng.random()).clamp(-1, 1)
