"""Few steps against many: what turbo loses to base, by the checker, and how much faster it is.

    python -m benchmarks.decoder_steps [--limit 60] [--turbo DIR ...] [--quick] [--json FILE]

Held-out scenes of the world are rendered, encoded, decoded by each variant with the same seeds, and read by the checker
(score: the share of things read in their cells, as in `llada-uni eval --suite decoder`). Beside the score stand two finer
measures, because on this world the score is full long before the pictures are: the distance to the rendered picture (PSNR,
dB) and the detail (mean absolute gradient, 1 is the rendered picture's). `--turbo`: further distilled decoders to compare,
as `NAME=FOLDER` with the folder that holds their config.json. Last come the drafts that the model has without a decoder.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import Row, arguments, progress, run, start
from llada_uni.decoder.decode import ImageDecoder
from llada_uni.decoder.model import load_transformer
from llada_uni.image.codes import ImageCodes
from llada_uni.image.quality import psnr
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.tasks.parts import Parts, find_model
from llada_uni.world.checker import Checker
from llada_uni.world.evaluation.scoring import score_decoded
from llada_uni.world.evaluation.suites import decoder_scene
from llada_uni.world.render import render
from llada_uni.world.scene import Scene

TURBO_STEPS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Quality:
    """Means over the pictures: score 0..1, psnr in dB, detail relative to the rendered pictures; seconds a picture."""

    score: float
    psnr: float
    detail: float
    seconds: float

    def numbers(self) -> dict[str, float]:
        return {"psnr": round(self.psnr, 2), "detail": round(self.detail, 3)}


@dataclass(frozen=True)
class Scenes:
    """What is decoded: scenes, their pictures, their codes."""

    scenes: list[Scene]
    pictures: list[Image.Image]
    codes: list[ImageCodes]

    @classmethod
    def draw(cls, model: Path, limit: int, seed: int = 0) -> Scenes:
        """The first `limit` scenes of the decoder suite on the held-out split."""
        scenes = [decoder_scene("heldout", seed, i) for i in range(limit)]
        pictures = [render(scene) for scene in scenes]
        return cls(scenes, pictures, ImageTokenizer.from_pretrained(model / "image_tokenizer").encode_many(pictures))

    def judge(self, decoder: ImageDecoder, variant: str, steps: int, checker: Checker) -> Quality:
        """Decodes every picture alone, as a request would be, with its number as its seed."""
        return self.measure(lambda codes, i: decoder.decode(codes, variant, steps, torch.Generator().manual_seed(i)), checker)

    def measure(self, make: Callable[[ImageCodes, int], Image.Image], checker: Checker) -> Quality:
        """make: codes and their number -> an image."""
        scores, psnrs, details, seconds = [], [], [], []
        for i, (scene, wanted, codes) in enumerate(zip(self.scenes, self.pictures, self.codes, strict=True)):
            began = time.perf_counter()
            found = make(codes, i)
            seconds.append(time.perf_counter() - began)
            scores.append(score_decoded(scene, checker.read(found))["right"])
            error = np.square(_array(found) - _array(wanted)).mean()
            psnrs.append(psnr(error, peak=255))
            details.append(_gradient(found) / _gradient(wanted))
        return Quality(np.mean(scores), np.mean(psnrs), np.mean(details), statistics.median(seconds))


def _array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float64)


def _gradient(picture: Image.Image) -> float:
    return np.abs(np.diff(_array(picture), axis=1)).mean()


def compare(model: Path, turbos: dict[str, Path | None], limit: int, quick: bool) -> list[Row]:
    """Rows of score and of seconds: every turbo decoder at every number of steps against base at 50 (quick: 10)."""
    scenes, checker = Scenes.draw(model, limit), Checker()
    many = 10 if quick else 50
    progress(f"base, {many} steps, {limit} pictures")
    base = scenes.judge(ImageDecoder(model), "base", many, checker)
    peer = f"base, {many} steps"
    rows = [Row(peer, "", "score", float(base.score), more=base.numbers() | {"seconds": base.seconds})]
    for name, folder in turbos.items():
        parts = None if folder is None else {"turbo": load_transformer(folder)}
        decoder = ImageDecoder(model, transformers=parts)
        for steps in TURBO_STEPS[:2] if quick else TURBO_STEPS:
            progress(f"{name}, {steps} steps")
            found = scenes.judge(decoder, "turbo", steps, checker)
            case = f"{name}, {steps} steps"
            rows.append(Row(case, peer, "score", float(found.score), float(base.score), more=found.numbers()))
            rows.append(Row(case, peer, "s/picture", found.seconds, base.seconds, base.seconds / found.seconds))
    opened = Parts(model, torch.device("cpu"), torch.float32)
    if (drafter := opened.drafter) is not None:
        pixels = opened.pixels_per_code
        found = scenes.measure(lambda codes, _: drafter.draw(codes, pixels), checker)
        rows.append(Row("drafts", peer, "score", float(found.score), float(base.score), more=found.numbers()))
        rows.append(Row("drafts", peer, "s/picture", found.seconds, base.seconds, base.seconds / found.seconds))
    return rows


def main(given: list[str] | None = None) -> int:
    parser = arguments(
        __doc__,
        model={"help": "model directory (default: the shipped one)"},
        limit={"type": int, "default": 60, "help": "pictures (default 60)"},
        turbo={"nargs": "*", "default": [], "metavar": "NAME=FOLDER", "help": "further turbo decoders"},
    )
    options = start(parser, given)
    turbos: dict[str, Path | None] = {"turbo": None}
    for entry in options.turbo:
        name, _, folder = entry.partition("=")
        turbos[name] = Path(folder)
    return run(lambda: compare(find_model(options.model), turbos, options.limit, options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
