"""Reads a picture back into a scene by matching sprites: no learned part, so scores can rest on it.

picture -> 96 x 96 colors -> nine cells, each in nine windows shifted by a pixel -> squared distance to every
candidate (concept x style x background color, and the empty cell of every color) by one matrix product ->
the background that explains all cells best -> the nearest thing in each cell, or `unknown` where
nothing fits.

    python -m llada_uni.world.checker --n 500

states the error rates on rendered, noisy, blurred and shifted pictures, and how often a picture that shows
no thing of the world (two sprites blended, blotches) is taken for one.
Legend: Q queries (9 cells x 9 windows), K candidates (2648), P values of a cell (32 x 32 x 3), C colors, T things.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from llada_uni.errors import UserError
from llada_uni.evaluation.intervals import wilson
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, SIDE, STYLES
from llada_uni.world.render import PIXELS, cell_pixels, render_array
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Scene, Thing

_CELL = 32  # side at which cells are compared
_SHIFTS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
_FITS = 0.002  # squared difference under which no shift can matter: unlike things are 0.004 apart, mostly 0.02
_COLOR_NAMES = tuple(COLORS)
_THINGS: tuple[Thing | None, ...] = (None, *(Thing(c, s) for c in CONCEPTS for s in STYLES))
_CONCEPT_OF = np.array([0] + [1 + i // len(STYLES) for i in range(len(_THINGS) - 1)])


@dataclass(frozen=True)
class Reading:
    """What the checker sees.

    scene: the nearest scene; unknown cells are empty in it. confidence: per cell, 0 to 1: how much nearer
    the thing is than the best one of another concept, 1 - best / that distance (styles of one concept may
    look alike; the nearest style counts). unknown: per cell, True where nothing fits well.
    error: per cell, mean squared difference to the nearest candidate, colors from 0 to 1.
    """

    scene: Scene
    confidence: tuple[float, ...]
    unknown: tuple[bool, ...]
    error: tuple[float, ...]

    @classmethod
    def of(cls, scene: Scene) -> Reading:
        """What a perfect picture of `scene` is read as."""
        cells = len(CELLS)
        return cls(scene, (1.0,) * cells, (False,) * cells, (0.0,) * cells)


class Checker:
    """Reads pictures of the world.

    size: side of the pictures it is made for; others are resized to it. A cell is unknown when its mean
    squared difference passes max_error (max_empty_error for an empty one: rubbish on bare ground is not
    nothing), or its confidence is under min_confidence. Rendered pictures come to 0.0000, slightly blurred
    ones to 0.003, those that went through the shipped autoencoder to 0.0014 at most.
    """

    def __init__(
        self,
        size: int = PIXELS,
        max_error: float = 0.02,
        max_empty_error: float = 0.008,
        min_confidence: float = 0.25,
    ) -> None:
        if size < SIDE * _CELL or size % SIDE:
            raise UserError(
                f"the checker reads pictures whose side is a multiple of {SIDE} and at least {SIDE * _CELL}, asked for {size}"
            )
        self.size, self.min_confidence = size, min_confidence
        self.max_error, self.max_empty_error = max_error, max_empty_error

    @cached_property
    def _candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """[P, C * T] float32 values of every color's cells with every thing, and [C * T] squared norms."""
        cells = [
            _shrink(cell_pixels(thing, color, self.size // SIDE), _CELL).ravel() for color in _COLOR_NAMES for thing in _THINGS
        ]
        table = np.ascontiguousarray(np.stack(cells).T)
        return table, (table * table).sum(0)

    def distances(self, image: Image.Image | np.ndarray, shifts: tuple[tuple[int, int], ...] = _SHIFTS) -> np.ndarray:
        """Mean squared differences [9 cells, C, T] of the best of the shifts (colors from 0 to 1)."""
        array = _as_array(image, self.size)
        small = np.pad(_shrink(array, SIDE * _CELL), ((1, 1), (1, 1), (0, 0)), mode="edge")
        queries = np.stack(
            [
                small[y + 1 + dy : y + 1 + dy + _CELL, x + 1 + dx : x + 1 + dx + _CELL].ravel()
                for y in range(0, SIDE * _CELL, _CELL)
                for x in range(0, SIDE * _CELL, _CELL)
                for dy, dx in shifts
            ]
        )
        table, norms = self._candidates
        squared = norms - 2 * (queries @ table) + (queries * queries).sum(1)[:, None]
        best = squared.reshape(len(CELLS), len(shifts), -1).min(1) / table.shape[0]
        return np.maximum(best, 0.0).reshape(len(CELLS), len(_COLOR_NAMES), len(_THINGS))

    def read(self, image: Image.Image | np.ndarray) -> Reading:
        """The scene in a picture (PIL, or uint8 [H, W, 3]). Never fails on a picture; see Reading.unknown.

        Shifts are tried only where the picture as it stands does not fit well: `read_shifted` always tries
        them and comes to the same scene.
        """
        reading = self._decide(self.distances(image, ((0, 0),)))
        if max(reading.error) < _FITS and not any(reading.unknown):
            return reading
        return self.read_shifted(image)

    def read_shifted(self, image: Image.Image | np.ndarray) -> Reading:
        """`read` without its short cut."""
        return self._decide(self.distances(image))

    def _decide(self, distances: np.ndarray) -> Reading:
        """The reading of distances [9, C, T]: background first, then the nearest thing of every cell."""
        color = int(distances.min(2).sum(0).argmin())
        cells, confidence, unknown, error = [], [], [], []
        for row in distances[:, color]:
            first = int(row.argmin())
            other = float(row[_CONCEPT_OF != _CONCEPT_OF[first]].min())
            sure = 1.0 - float(row[first]) / max(other, 1e-9)
            limit = self.max_error if first else self.max_empty_error  # thing 0 is none
            lost = float(row[first]) > limit or sure < self.min_confidence
            cells.append(None if lost else _THINGS[first])
            confidence.append(sure)
            unknown.append(lost)
            error.append(float(row[first]))
        return Reading(Scene(tuple(cells), _COLOR_NAMES[color]), tuple(confidence), tuple(unknown), tuple(error))


def _as_array(image: Image.Image | np.ndarray, size: int) -> np.ndarray:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _shrink(array: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, H, 3] -> float32 [side, side, 3] from 0 to 1, by averaging."""
    if array.shape[0] % side == 0:
        k = array.shape[0] // side
        means = array.reshape(side, k, side, k, 3).mean((1, 3), dtype=np.float32)
    else:
        means = np.asarray(Image.fromarray(array).resize((side, side), Image.Resampling.BOX), np.float32)
    return means / np.float32(255)


def disturb(array: np.ndarray, rng: np.random.Generator, noise: float = 0.0, blur: float = 0.0, shift: int = 0) -> np.ndarray:
    """A picture made worse: Gaussian noise of sigma `noise` (of 255), Gaussian blur of radius `blur`,
    moved."""
    if shift:
        dy, dx = rng.choice((-shift, shift), 2)
        padded = np.pad(array, ((shift, shift), (shift, shift), (0, 0)), mode="edge")
        array = padded[shift + dy : shift + dy + len(array), shift + dx : shift + dx + len(array)]
    if blur:
        array = np.asarray(Image.fromarray(array).filter(ImageFilter.GaussianBlur(blur)))
    if noise:
        array = np.clip(np.rint(array + rng.normal(0.0, noise, array.shape)), 0, 255).astype(np.uint8)
    return array


def error_rate(
    n: int,
    seed: int = 0,
    noise: float = 0.0,
    blur: float = 0.0,
    shift: int = 0,
    checker: Checker | None = None,
) -> dict:
    """Reads n random rendered scenes (a fifth with a number) after `disturb`.

    Returns {"cells", "cells_interval", "scenes", "scenes_interval", "unknown", "n"}: shares of cells read
    wrong (another thing, or nothing, or unknown), of scenes with anything wrong (background too), of cells
    called unknown; intervals are 95 % Wilson.
    """
    checker = checker or Checker()
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    wrong_cells = wrong_scenes = unknown = 0
    for _ in range(n):
        scene = sample_scene(rng, "any", numbers=0.2)
        reading = checker.read(disturb(render_array(scene, checker.size), numbers, noise, blur, shift))
        bad = sum(a != b or u for a, b, u in zip(reading.scene.cells, scene.cells, reading.unknown, strict=True))
        wrong_cells += bad
        unknown += sum(reading.unknown)
        wrong_scenes += bad > 0 or reading.scene != scene
    cells = n * len(CELLS)
    return {
        "cells": wrong_cells / cells,
        "cells_interval": wilson(wrong_cells, cells),
        "scenes": wrong_scenes / n,
        "scenes_interval": wilson(wrong_scenes, n),
        "unknown": unknown / cells,
        "n": n,
    }


def false_alarms(n: int, seed: int = 0, checker: Checker | None = None) -> dict:
    """Reads n pictures whose cells show no thing of the world; the share of cells taken for a thing.

    Half the pictures blend two random sprites 1 : 1 in every cell, half hold blotches of random colors.
    """
    checker = checker or Checker()
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    taken = {"blends": 0, "blotches": 0}
    half = max(n // 2, 1)
    for _ in range(half):
        a, b = (render_array(_full(rng), checker.size).astype(np.float32) for _ in range(2))
        reading = checker.read(((a + b) / 2).astype(np.uint8))
        taken["blends"] += sum(t is not None for t in reading.scene.cells)
        coarse = numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        blotches = Image.fromarray(coarse).resize((checker.size,) * 2, Image.Resampling.BICUBIC)
        taken["blotches"] += sum(t is not None for t in checker.read(blotches).scene.cells)
    cells = half * len(CELLS)
    return {k: v / cells for k, v in taken.items()} | {
        "n": n,
        "interval": wilson(sum(taken.values()), 2 * cells),
    }


def _full(rng: random.Random) -> Scene:
    cells = tuple(Thing(rng.choice(tuple(CONCEPTS)), rng.choice(STYLES)) for _ in CELLS)
    return Scene(cells, "white")


CONDITIONS: dict[str, dict[str, Any]] = {
    "clean": {},
    "noise 8/255": {"noise": 8.0},
    "noise 16/255": {"noise": 16.0},
    "blur 1 px": {"blur": 1.0},
    "blur 2 px": {"blur": 2.0},
    "shift 1 px": {"shift": 1},
    "shift 2 px": {"shift": 2},
    "noise 8/255, blur 1 px, shift 1 px": {"noise": 8.0, "blur": 1.0, "shift": 1},
}
"""The disturbances under which the command states its error rates."""


def main(argv: list[str] | None = None) -> None:
    """Command line: prints a row per condition, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m llada_uni.world.checker", description="the checker's own errors")
    parser.add_argument("--n", type=int, default=500, help="pictures a condition")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.n < 1:
        parser.error("--n must be at least 1")
    checker = Checker()
    report = {name: error_rate(args.n, args.seed, checker=checker, **how) for name, how in CONDITIONS.items()}
    alarms = false_alarms(args.n, args.seed, checker)
    if args.json:
        print(json.dumps({"errors": report, "false_alarms": alarms}))
        return
    print(f"{'condition':36} {'cells wrong':>24} {'scenes wrong':>24} {'unknown':>8}   (95 % intervals)")
    for name, r in report.items():
        cells, scenes = ("{:6.2%} [{:5.2%}, {:6.2%}]".format(r[k], *r[f"{k}_interval"]) for k in ("cells", "scenes"))
        print(f"{name:36} {cells:>24} {scenes:>24} {r['unknown']:8.2%}")
    low, high = alarms["interval"]
    print(
        f"cells without a thing of the world taken for one: blended sprites {alarms['blends']:.2%}, "
        f"blotches {alarms['blotches']:.2%}; together [{low:.2%}, {high:.2%}]"
    )


if __name__ == "__main__":
    main()
