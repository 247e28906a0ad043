"""What a model of class-labeled photographs draws, edits and decodes again, on one sheet: nothing is picked, seeds go from 0.

    PHOTOS=cifar10/ python -m scripts.photos_sheet runs/photos/model --out photos.png

Upper part: a row for each class, drawings in wordings that training has not seen. Lower part, of test images in the fixed
random order of the suite `photos`: a row of images, one of their reconstructions through codes, one turned into the next class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from llada_uni.files.weights import atomic_file
from llada_uni.model import UniModel
from llada_uni.photos.suite import EDIT, PhotosSuite, filled
from llada_uni.training.loop.sheets import sheet

COLUMNS = 8


def rows_of(model: UniModel, suite: PhotosSuite, decoder: str, columns: int = COLUMNS) -> list[list[Image.Image]]:
    """The rows of the sheet; seeds count from 0 in each row."""
    names = suite.names
    rows = [
        [
            model.generate_image(filled(suite.wordings[seed % len(suite.wordings)], name), seed=seed, decoder=decoder).image
            for seed in range(columns)
        ]
        for name in names
    ]
    images = [Image.fromarray(image) for image in suite.tests.images[:columns]]
    decoded = [model.decode_codes(model.encode_image(image), seed=i, decoder=decoder).image for i, image in enumerate(images)]
    wanted = [names[(label + 1) % len(names)] for label in suite.tests.labels[:columns]]
    edited = [
        model.edit_image(image, filled(EDIT, name), seed=i, decoder=decoder).image
        for i, (image, name) in enumerate(zip(images, wanted, strict=True))
    ]
    shown = [image.resize(decoded[0].size, Image.Resampling.BICUBIC) for image in images]
    return [*rows, shown, decoded, edited]


def main(given: Sequence[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model directory")
    parser.add_argument("--decoder", default="turbo", choices=("turbo", "base"), help="which decoder (default turbo)")
    parser.add_argument("--columns", type=int, default=COLUMNS, help=f"images of a row (default {COLUMNS})")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    options = parser.parse_args(given)
    model = UniModel.from_pretrained(options.model)
    rows = rows_of(model, PhotosSuite("photos"), options.decoder, options.columns)
    with atomic_file(options.out) as temporary:
        Image.fromarray(sheet([[np.asarray(image) for image in row] for row in rows])).save(temporary, format="PNG")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
