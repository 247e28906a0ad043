"""Whether an image tokenizer knows the images of records: some are encoded, decoded, and compared with what they were.

A tokenizer gives codes for anything. On images of a kind that it never met these say little, and what is trained on them
learns little; `llada-uni data check --model DIR` and `data extract` say so in words.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from llada_uni.data.some_images import own_tokenizer, some_images
from llada_uni.data.sources import RecordSource
from llada_uni.decoder.decode import ImageDecoder
from llada_uni.files.model_dir import CODE_FEATURES, DECODERS, VAE
from llada_uni.image.preprocess import resize_for_understanding
from llada_uni.image.quality import psnr

COUNT = 16  # images that are looked at
_SIDE = 24  # pixels at which images are compared: what they show, not how sharp it is
# Measured on the shipped model: its own world 32 dB, every image nearest to itself; photographs 10 dB and 0.4.
_FAR, _KNOWN = 14.0, 0.75
_SMALL = 200 * 2**20  # bytes of a decoder


@dataclass(frozen=True)
class RoundTrip:
    """What became of `images` images.

    used, codebook: different codes seen, and how many there are. even: near 1 where those seen are equally frequent, near 0
    where one is everywhere. psnr: dB between images and reconstructions at 24 px, None without a decoder; own: share of the
    images that are nearer to their own reconstruction than to those of the others.
    """

    images: int
    used: int
    codebook: int
    even: float
    psnr: float | None
    own: float | None

    @property
    def known(self) -> bool | None:
        """Whether such images survive; None where no decoder was there to tell, or too few images."""
        if self.psnr is None or self.own is None or self.images < 4:
            return None
        return self.psnr >= _FAR and self.own >= _KNOWN

    def __str__(self) -> str:
        said = f"{self.images} images became {self.used} different codes of {self.codebook}"
        if self.psnr is None:
            return f"{said}; the model has no decoder, so nothing says whether its tokenizer knows such images"
        said = f"{said}; decoded again they are {self.psnr:.1f} dB away, {self.own:.0%} of them nearest to themselves"
        if self.known is False:
            return (
                f"{said}. This tokenizer does not know such images: their codes say little, and so does what is trained on them"
            )
        return said


def round_trip(source: RecordSource, model: str | Path, count: int = COUNT) -> RoundTrip | None:
    """Tries up to `count` different images of a source, spread over it. None where it has no image that can be used.

    model: a directory with an image tokenizer; decoders are used if they are there. UserError without a tokenizer.
    """
    folder, tokenizer = Path(model), own_tokenizer(model)
    images = list(some_images(source, count))
    if not images:
        return None
    codes = tokenizer.encode_many(images, "understand")
    uses = Counter(code for one in codes for code in one.codes)
    shares = np.array(list(uses.values())) / sum(uses.values())
    even = float(-(shares * np.log(shares)).sum()) / math.log(max(2, min(tokenizer.codebook_size, sum(uses.values()))))
    near = own = None
    decoder = ImageDecoder.from_pretrained(folder)
    if decoder.variants and VAE.there(folder) and CODE_FEATURES.there(folder):
        seen = np.stack([_small(resize_for_understanding(image, True, tokenizer.settings)) for image in images])
        generators = [torch.Generator().manual_seed(number) for number in range(len(codes))]
        back = np.stack([_small(image) for image in decoder.decode_many(codes, decoder.variants[0], generators=generators)])
        errors = ((seen[:, None] - back[None]) ** 2).mean((2, 3, 4))
        near = float(np.mean([psnr(error) for error in errors.diagonal()]))
        own = float((errors.argmin(1) == np.arange(len(images))).mean())
    return RoundTrip(len(images), len(uses), tokenizer.codebook_size, even, near, own)


def small_decoder(model: str | Path) -> bool:
    """Whether the directory has a decoder, and one that decodes a few images in seconds also on a CPU."""
    parts = [part for part in DECODERS.values() if part.there(Path(model))]
    files = [Path(model) / file for part in parts[:1] for file in part.files(Path(model))]
    return bool(files) and sum(file.stat().st_size for file in files) < _SMALL


def _small(image: Image.Image) -> np.ndarray:
    """float64 [24, 24, 3], 0..1."""
    return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64) / 255
