"""LoRA on own data, in minutes: the shipped model learns a new name and a new style from a few hundred pictures.

- "zorp", a new concept: what this user calls the thing that the world calls a 3d cat (a look the backbone never trained on);
- "retro", a new style: flat drawings on yellow ground, shown on half of the concepts and tested on the other half.

    python scripts/lora_world.py data runs/world/lora-data               # conversation records with pictures, as a user has
    llada-uni data check runs/world/lora-data
    llada-uni data extract runs/world/lora-data runs/world/lora-tokens --model models/world
    llada-uni data extract world:4000:77 runs/world/lora-replay --model models/world    # so that old abilities stay
    llada-uni train recipes/world/lora.yaml
    llada-uni export runs/world/lora-model models/world runs/world/lora
    python scripts/lora_world.py measure models/world runs/world/lora-model

What flows through: scenes -> samples in the user's words -> JSONL and PNG files; a model directory -> answers -> the world's
checker -> shares right. In tests all other things are of the 20 concepts that none of the user's pictures shows.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

from llada_uni.checkpoint.files import atomic_file
from llada_uni.evaluation.suites import DEFAULT_SETTINGS, Context, ask_edit, ask_t2i, ask_understand, run_suites
from llada_uni.model import UniModel
from llada_uni.world.checker import Checker
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, STYLES
from llada_uni.world.intervals import wilson
from llada_uni.world.render import render
from llada_uni.world.samples import Sample, Turn, wanted
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.wordings import article, joined, pick

ZORP = Thing("cat", "3d")
RETRO_STYLE, RETRO_GROUND = "flat", "yellow"
_NAMES = random.Random(7).sample([name for name in CONCEPTS if name != ZORP.concept], len(CONCEPTS) - 1)
SHOWN, UNSEEN = tuple(_NAMES[:20]), tuple(_NAMES[20:])


class Samples:
    """Draws samples with things from `names` beside the zorp. plain: drawing is asked for in the world's own words instead."""

    def __init__(self, rng: random.Random, names: tuple[str, ...], plain: bool = False) -> None:
        self.rng, self.names, self.plain = rng, names, plain

    def _zorp_scene(self, others: int) -> tuple[Scene, int]:
        """A scene with one zorp and its cell."""
        cell = self.rng.randrange(4)
        scene = self._scene([cell], [ZORP])
        free = self.rng.sample([i for i in range(4) if i != cell], others)
        for place, name in zip(free, self.rng.sample(self.names, others), strict=True):
            scene = scene.replace_cell(place, Thing(name, self.rng.choice(STYLES)))
        return scene, cell

    def _scene(self, cells: list[int], things: list[Thing], ground: str | None = None) -> Scene:
        placed = dict(zip(cells, things, strict=True))
        return Scene(tuple(placed.get(i) for i in range(4)), (ground or self.rng.choice(tuple(COLORS)),))

    def _prompt(self, named: list[tuple[str, int]], with_places: bool, ground: str | None) -> str:
        """Words for things (name with its style, cell); ground: named at the end."""
        if with_places:
            at = pick(self.rng, "at", "train")
            text = " and ".join(at.format(a=article(name), p=POSITIONS[cell]) for name, cell in named)
        else:
            text = joined([article(name) for name, _ in named])
        text += f" on {ground}" if ground else ""
        return pick(self.rng, "draw", "train").format(d=text)

    def zorp_draw(self) -> Sample:
        scene, _ = self._zorp_scene(self.rng.choice((0, 1, 1, 2)))
        with_places, ground = self.rng.random() < 0.7, scene.background[0] if self.rng.random() < 0.6 else None
        new = None if self.plain else ZORP
        named = [("zorp" if thing == new else f"{thing.style} {thing.concept}", cell) for cell, thing in scene.things()]
        objects = [wanted(t.concept, t.style, cell if with_places else None) for cell, t in scene.things()]
        turn = Turn("user", [self._prompt(named, with_places, ground)])
        return Sample("t2i", "zorp", [turn], [scene], {"objects": objects, "background": ground})

    def zorp_read(self) -> Sample:
        scene, cell = self._zorp_scene(self.rng.choice((1, 2, 3)))
        if self.rng.random() < 0.6:
            question, answer = pick(self.rng, "what", "train").format(p=POSITIONS[cell]), "zorp"
        else:
            question, answer = pick(self.rng, "where", "train").format(x="zorp"), POSITIONS[cell]
        return Sample("understand", "zorp", [Turn("user", [scene, question])], [answer], {"answer": answer})

    def zorp_edit(self) -> Sample:
        scene, cell = self._zorp_scene(self.rng.choice((1, 2)))
        there = {thing.concept for _, thing in scene.things()}
        other = self.rng.choice([name for name in self.names if name not in there])
        if self.rng.random() < 0.5:
            source = scene.replace_cell(cell, Thing(other, self.rng.choice(STYLES)))
            words = pick(self.rng, "replace", "train").format(x=other, a="a zorp")
        else:
            source = scene.replace_cell(cell, None)
            words = pick(self.rng, "add", "train").format(a="a zorp", p=POSITIONS[cell])
        expect = {"source": source, "scene": scene, "cells": [cell]}
        return Sample("edit", "zorp", [Turn("user", [source, words])], [scene], expect)

    def _retro_scene(self) -> Scene:
        count = self.rng.choice((1, 2, 2, 3))
        cells = sorted(self.rng.sample(range(4), count))
        return self._scene(cells, [Thing(n, RETRO_STYLE) for n in self.rng.sample(self.names, count)], RETRO_GROUND)

    def retro_draw(self) -> Sample:
        scene, with_places = self._retro_scene(), self.rng.random() < 0.7
        style, ground = (RETRO_STYLE, RETRO_GROUND) if self.plain else ("retro", None)
        named = [(f"{style} {thing.concept}", cell) for cell, thing in scene.things()]
        objects = [wanted(t.concept, t.style, cell if with_places else None) for cell, t in scene.things()]
        turn = Turn("user", [self._prompt(named, with_places, ground)])
        return Sample("t2i", "retro", [turn], [scene], {"objects": objects, "background": RETRO_GROUND})

    def retro_edit(self) -> Sample:
        scene = self._retro_scene()
        cells, style = [cell for cell, _ in scene.things()], self.rng.choice([s for s in STYLES if s != RETRO_STYLE])
        ground = self.rng.choice([color for color in COLORS if color != RETRO_GROUND])
        source = self._scene(cells, [Thing(t.concept, style) for _, t in scene.things()], ground)
        words = pick(self.rng, "restyle all", "train").format(s="retro")
        expect = {"source": source, "scene": scene, "cells": cells}
        return Sample("edit", "retro", [Turn("user", [source, words])], [scene], expect)

    def of(self, kind: str) -> Sample:
        return getattr(self, kind.replace(" ", "_"))()


KINDS: dict[str, tuple[int, Callable]] = {
    "zorp draw": (140, ask_t2i),
    "zorp read": (140, ask_understand),
    "zorp edit": (60, ask_edit),
    "retro draw": (140, ask_t2i),
    "retro edit": (80, ask_edit),
}
"""Kind -> how many records the user has of it, and how the model is asked."""


def write_data(out: Path, seed: int) -> None:
    """records.jsonl and pictures/ of KINDS' numbers, in the format of docs/data.md."""
    samples = Samples(random.Random(seed), SHOWN)
    pictures: dict[Scene, str] = {}
    lines = []

    def part(value: str | Scene) -> dict[str, str]:
        if isinstance(value, str):
            return {"type": "text", "text": value}
        if value not in pictures:
            pictures[value] = f"pictures/{len(pictures):04}.png"
            render(value, 128).save(out / pictures[value])
        return {"type": "image", "image": pictures[value]}

    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for kind, (count, _) in KINDS.items():
        for number in range(count):
            sample = samples.of(kind)
            turns = [*sample.turns, Turn("assistant", sample.answer)]
            messages = [{"role": turn.role, "content": [part(value) for value in turn.parts]} for turn in turns]
            lines.append(json.dumps({"id": f"{kind} {number}", "task": sample.task, "messages": messages}))
    with atomic_file(out / "records.jsonl") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out}: {len(lines)} records, {len(pictures)} pictures")


def new_score(model: UniModel, kind: str, count: int, seed: int) -> float:
    """Share right (exact) of a new kind, or of "KIND in known words", with unseen concepts."""
    context = Context(model, Checker(size=128), DEFAULT_SETTINGS)
    kind, known, _ = kind.partition(" in known words")
    samples, ask = Samples(random.Random(f"{kind}/{seed}"), UNSEEN, plain=bool(known)), KINDS[kind][1]
    return sum(ask(context, samples.of(kind), seed + i).scores["exact"] for i in range(count)) / count


def old_score(model: UniModel, suite: str, count: int, seed: int) -> float:
    """The headline of a suite on held-out scenes, as `llada-uni eval` gives it."""
    return run_suites(model, [suite], count, seed, "heldout")["suites"][suite]["overall"]


def measure(folders: list[str], count: int, old: int, seed: int) -> None:
    """Prints a row for each new kind and each old suite: the models in the order given, with 95 % intervals."""
    models = [UniModel.from_pretrained(folder, device="cpu") for folder in folders]
    kinds = [*KINDS, "zorp draw in known words", "retro draw in known words"]
    asked = [(kind, count, new_score, kind) for kind in kinds]
    asked += [(f"old {suite}", old, old_score, suite) for suite in ("t2i", "understand", "edit") if old]
    for name, n, score, what in asked:
        shares = [score(model, what, n, seed) for model in models]
        intervals = [wilson(share * n, n) for share in shares]
        cells = [f"{share:.2f} [{low:.2f}, {high:.2f}]" for share, (low, high) in zip(shares, intervals, strict=True)]
        print(f"{name:26} n {n:4}  {'  ->  '.join(cells)}", flush=True)


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write the user's records")
    data.add_argument("out", type=Path)
    ask = commands.add_parser("measure", help="ask models and let the checker judge")
    ask.add_argument("models", nargs="+")
    ask.add_argument("--count", type=int, default=40, help="questions of each new kind")
    ask.add_argument("--old", type=int, default=60, help="questions of each old suite; 0: none")
    for command in (data, ask):
        command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.command == "data":
        write_data(args.out, args.seed)
        return
    measure(args.models, args.count, args.old, args.seed)


if __name__ == "__main__":
    main()
