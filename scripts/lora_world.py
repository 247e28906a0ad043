"""LoRA on own data, in minutes: the shipped model learns a new name and a new style from a few hundred pictures.

- "zorp", a new concept: what this user calls the thing that the world calls a 3d dog (a look the backbone never trained on);
- "retro", a new style: flat drawings on yellow ground, shown on half of the concepts and tested on the other half.

    python scripts/lora_world.py data runs/world/lora-data               # conversation records with pictures, as a user has
    llada-uni data check runs/world/lora-data
    llada-uni data extract runs/world/lora-data runs/world/lora-tokens --model models/world
    llada-uni data extract world:4000:77 runs/world/lora-replay --model models/world    # so that old abilities stay
    llada-uni train recipes/world/lora.yaml
    llada-uni export runs/world/lora-model models/world runs/world/lora
    python scripts/lora_world.py measure models/world runs/world/lora-model

Scenes -> samples in the user's words -> JSONL and PNG files; a model directory -> answers -> the world's
checker -> shares right. In tests all other things are of the concepts that none of the user's pictures shows.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

from llada_uni.evaluation.intervals import wilson
from llada_uni.evaluation.run import run_suites
from llada_uni.files.weights import atomic_file
from llada_uni.model import UniModel
from llada_uni.world.arrangement import cells_of
from llada_uni.world.checker import Checker
from llada_uni.world.concepts import CELLS, COLORS, POSITIONS, STYLES, THINGS
from llada_uni.world.edits import expected
from llada_uni.world.evaluation.asking import Context, ask_drawing, ask_edit, ask_question
from llada_uni.world.evaluation.suites import DEFAULT_SETTINGS
from llada_uni.world.render import render
from llada_uni.world.samples import Sample, Turn, wanted
from llada_uni.world.scene import Scene, Thing, placed
from llada_uni.world.wordings import Speaker, article, joined

ZORP = Thing("dog", "3d")
RETRO_STYLE, RETRO_GROUND = "flat", "yellow"
_NAMES = random.Random(7).sample([name for name in THINGS if name != ZORP.concept], len(THINGS) - 1)
SHOWN, UNSEEN = tuple(_NAMES[:50]), tuple(_NAMES[50:])


class Samples:
    """Draws samples with things from `names` beside the zorp. plain: drawing is asked for in the world's own words instead."""

    def __init__(self, rng: random.Random, names: tuple[str, ...], plain: bool = False) -> None:
        self.rng, self.names, self.plain, self.say = rng, names, plain, Speaker(rng, "train")

    def _things(self, others: int) -> list[Thing]:
        """A zorp and other things, in any order."""
        things = [ZORP, *(Thing(name, self.rng.choice(STYLES)) for name in self.rng.sample(self.names, others))]
        return self.rng.sample(things, len(things))

    def _cells(self, count: int, with_places: bool) -> list[int]:
        """Any cells where the places are said, else those that are taken then."""
        return self.rng.sample(CELLS, count) if with_places else [cells[0] for cells in cells_of([1] * count)]

    def _scene(self, cells: list[int], things: list[Thing], ground: str | None = None) -> Scene:
        return placed(dict(zip(cells, things, strict=True)), ground or self.rng.choice(tuple(COLORS)))

    def _prompt(self, named: list[tuple[str, int]], with_places: bool, ground: str | None) -> str:
        """Words for things (name with its style, cell); ground: named at the end."""
        if with_places:
            at = self.say.pick("at")
            text = " and ".join(at.format(a=article(name), p=POSITIONS[cell]) for name, cell in named)
        else:
            text = joined([article(name) for name, _ in named])
        text += f" on {ground}" if ground else ""
        return self.say.pick("draw").format(d=text)

    def _drawing(self, kind: str, named: list[tuple[str, int]], scene: Scene, with_places: bool, ground: str | None) -> Sample:
        """A request for `scene` with its things named; ground: said, or meant by the new style."""
        objects = [wanted(t.concept, t.style, cell if with_places else None) for cell, t in scene.things()]
        said = None if kind == "retro" and not self.plain else ground
        expect = {"objects": objects, "background": ground, "relations": [], "number": None, "row": None}
        return Sample("t2i", kind, [Turn("user", [self._prompt(named, with_places, said)])], [scene], expect)

    def zorp_draw(self) -> Sample:
        things, with_places = self._things(self.rng.choice((0, 1, 1, 2))), self.rng.random() < 0.7
        cells = self._cells(len(things), with_places)
        scene = self._scene(cells, things)
        new = None if self.plain else ZORP
        named = [("zorp" if t == new else f"{t.style} {t.concept}", cell) for t, cell in zip(things, cells, strict=True)]
        return self._drawing("zorp", named, scene, with_places, scene.background if self.rng.random() < 0.6 else None)

    def _zorp_scene(self, others: int) -> tuple[Scene, int]:
        """A scene with one zorp somewhere and its cell."""
        scene = self._scene(self._cells(1 + others, True), self._things(others))
        return scene, next(cell for cell, thing in scene.things() if thing == ZORP)

    def zorp_read(self) -> Sample:
        scene, cell = self._zorp_scene(self.rng.choice((1, 2, 3)))
        if self.rng.random() < 0.6:
            question, answer = self.say.pick("what").format(p=POSITIONS[cell]), "zorp"
        else:
            question, answer = self.say.pick("where").format(x="zorp"), POSITIONS[cell]
        return Sample("understand", "zorp", [Turn("user", [scene, question])], [answer], {"answer": answer, "key": None})

    def zorp_edit(self) -> Sample:
        scene, cell = self._zorp_scene(self.rng.choice((1, 2)))
        there = {thing.concept for _, thing in scene.things()}
        other = self.rng.choice([name for name in self.names if name not in there])
        if self.rng.random() < 0.5:
            source = scene.replace_cell(cell, Thing(other, self.rng.choice(STYLES)))
            words = self.say.pick("replace").format(x=other, a="a zorp")
        else:
            source = scene.replace_cell(cell, None)
            words = self.say.pick("add").format(a="a zorp", p=POSITIONS[cell])
        return Sample("edit", "zorp", [Turn("user", [source, words])], [scene], expected(source, scene))

    def _retro_scene(self, with_places: bool) -> tuple[Scene, list[tuple[Thing, int]]]:
        """A scene, and its things in the order in which they are said."""
        things = [Thing(name, RETRO_STYLE) for name in self.rng.sample(self.names, self.rng.choice((1, 2, 2, 3)))]
        cells = self._cells(len(things), with_places)
        return self._scene(cells, things, RETRO_GROUND), list(zip(things, cells, strict=True))

    def retro_draw(self) -> Sample:
        with_places = self.rng.random() < 0.7
        scene, said = self._retro_scene(with_places)
        style = RETRO_STYLE if self.plain else "retro"
        named = [(f"{style} {thing.concept}", cell) for thing, cell in said]
        return self._drawing("retro", named, scene, with_places, RETRO_GROUND)

    def retro_edit(self) -> Sample:
        scene, _ = self._retro_scene(True)
        style = self.rng.choice([s for s in STYLES if s != RETRO_STYLE])
        ground = self.rng.choice([color for color in COLORS if color != RETRO_GROUND])
        cells = [cell for cell, _ in scene.things()]
        source = self._scene(cells, [Thing(t.concept, style) for _, t in scene.things()], ground)
        words = self.say.pick("restyle all").format(s="retro")
        return Sample("edit", "retro", [Turn("user", [source, words])], [scene], expected(source, scene))

    def of(self, kind: str) -> Sample:
        return getattr(self, kind.replace(" ", "_"))()


KINDS: dict[str, tuple[int, Callable]] = {
    "zorp draw": (140, ask_drawing),
    "zorp read": (140, ask_question),
    "zorp edit": (60, ask_edit),
    "retro draw": (140, ask_drawing),
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
            render(value).save(out / pictures[value])
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
    context = Context(model, Checker(), DEFAULT_SETTINGS)
    kind, known, _ = kind.partition(" in known words")
    samples, ask = Samples(random.Random(f"{kind}/{seed}"), UNSEEN, plain=bool(known)), KINDS[kind][1]
    return sum(ask(context, samples.of(kind), seed + i).score for i in range(count)) / count


def old_score(model: UniModel, suite: str, count: int, seed: int) -> float:
    """The headline of a suite on held-out scenes, as `llada-uni eval` gives it."""
    return run_suites(model, [suite], count, seed, "heldout")["suites"][suite]["overall"]


def measure(folders: list[str], count: int, old: int, seed: int) -> None:
    """Prints a row for each new kind and each old suite: the models in the order given, with 95 % intervals."""
    models = [UniModel.from_pretrained(folder, device="cpu") for folder in folders]
    kinds = [*KINDS, "zorp draw in known words", "retro draw in known words"]
    asked = [(kind, count, new_score, kind) for kind in kinds]
    asked += [(f"old {suite}", old, old_score, suite) for suite in ("geneval", "understand", "edit") if old]
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
