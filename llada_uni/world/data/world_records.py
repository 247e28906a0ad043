"""The small world as conversation records: any number, in mixtures, the same for the same seed.

`WorldRecords` (count, seed, mixture) -> samples of world/tasks.py -> `Conversation`s whose pictures are
scenes, rendered when they are opened; `write_world` puts them into files like anybody's data.

Record i depends on the seed and i // BLOCK alone, so any part can be made on its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from PIL import Image

from llada_uni.data.records import BadRecords, Conversation, Message, Picture
from llada_uni.data.sources import CHUNK, Chunk
from llada_uni.data.templates import TEMPLATES
from llada_uni.errors import UserError
from llada_uni.world.captions import caption
from llada_uni.world.concepts import CELLS
from llada_uni.world.drills import sample_drill
from llada_uni.world.render import render
from llada_uni.world.rewording import mistyped
from llada_uni.world.samples import Sample, Turn, until
from llada_uni.world.scene import Scene
from llada_uni.world.tasks import KINDS, sample_task
from llada_uni.world.wordings import Speaker

BLOCK = 100
SPLITS = ("train", "heldout")
TYPING_MISTAKES = 0.12
"""Share of records whose last words of the user hold a typing mistake."""
_TEMPLATE_OF = {"reasoning": "story"}  # where the world's task has another name than the template it uses
Weights = Mapping[tuple[str, str | None], float]
"""(task, kind or None for a draw by the world's own weights) -> how often."""

DRILL = "drill"
"""In place of a task: the drills of world/drills.py; the kind is one of DRILLS."""

UNREASONED = "unreasoned"
"""In place of a task: the requests of `think` with the image alone as the answer, as `t2i`; the kind is one of theirs."""

DESCRIBED = "described"
"""In place of a task: the pictures of `t2i` the other way round, as captions."""

MIXTURES: dict[str, Weights] = {
    # Few things in a picture, and words for all of them: which word is which drawing is learned soonest here.
    "first": {
        ("t2i", "single"): 0.25,
        ("t2i", "two objects"): 0.08,
        ("t2i", "position"): 0.22,
        (DESCRIBED, "single"): 0.15,
        (DESCRIBED, "position"): 0.15,
        ("understand", "what-is-where"): 0.15,
    },
    # Two things at most, at places that are named: which words are which place is learned here, in both directions.
    "places": {
        ("t2i", "position"): 0.26,
        (DESCRIBED, "position"): 0.14,
        ("understand", "what-is-where"): 0.20,
        ("understand", "relation"): 0.05,
        ("edit", "add"): 0.10,
        ("edit", "remove"): 0.08,
        ("edit", "move"): 0.10,
        ("edit", "replace"): 0.07,
    },
    "default": {
        ("t2i", None): 0.29,
        ("understand", None): 0.27,
        ("edit", None): 0.18,
        ("story", None): 0.09,
        ("reasoning", None): 0.06,
        ("think", None): 0.06,
        ("dialogue", None): 0.05,
    },
    # What needs a place in the picture to be read: the answers are short, so they are learned last.
    "reading": {
        ("understand", "what-is-where"): 0.28,
        ("understand", "caption"): 0.20,
        ("understand", "counting"): 0.14,
        ("understand", "relation"): 0.08,
        ("understand", "presence"): 0.05,
        ("understand", "two pictures"): 0.05,
        ("edit", "remove"): 0.05,
        ("edit", "replace"): 0.05,
        ("edit", "style"): 0.05,
        ("edit", "move"): 0.05,
    },
    # Many small questions at once, until things are found by their names.
    "drills": {
        (DRILL, "where"): 0.30,
        (DRILL, "which"): 0.15,
        (DRILL, "remove"): 0.25,
        (DRILL, "extract"): 0.15,
        (DRILL, "restyle"): 0.15,
    },
    # What needs a thing to be found by its name: in the picture for a question, and at its place for an edit.
    "finding": {
        ("edit", "remove"): 0.20,
        ("edit", "replace"): 0.14,
        ("edit", "move"): 0.10,
        ("edit", "style"): 0.06,
        ("edit", "extract"): 0.08,
        ("understand", "presence"): 0.14,
        ("understand", "relation"): 0.10,
        ("understand", "what-is-where"): 0.10,
        ("understand", "two pictures"): 0.04,
        ("understand", "counting"): 0.04,
    },
    # Questions that name a thing: where it is, whether it is there, how it stands to another.
    "asking": {
        ("understand", "what-is-where"): 0.60,
        ("understand", "presence"): 0.25,
        ("understand", "relation"): 0.15,
    },
    # What the first mixtures teach too rarely: stories that leave much open, numbers, edits that copy from place to place.
    "late": {
        ("story", "open"): 0.25,
        ("t2i", "number"): 0.15,
        ("t2i", "position"): 0.10,
        ("t2i", "attribute binding"): 0.06,
        ("edit", "remove"): 0.08,
        ("edit", "replace"): 0.08,
        ("edit", "move"): 0.10,
        ("edit", "style"): 0.06,
        ("edit", "extract"): 0.05,
        ("edit", "two references"): 0.07,
    },
    # The kinds that a model of all of the above got wrong most often (docs/log.md).
    "hard": {
        ("understand", "caption"): 0.10,
        ("understand", "counting"): 0.15,
        ("understand", "two pictures"): 0.16,
        ("understand", "style"): 0.09,
        ("understand", "relation"): 0.08,
        ("understand", "presence"): 0.03,
        ("understand", "number reading"): 0.02,
        ("t2i", "counting"): 0.04,
        ("t2i", "position"): 0.02,
        ("t2i", "attribute binding"): 0.02,
        ("think", "sequence"): 0.07,
        ("think", "minus"): 0.03,
        ("think", "riddle"): 0.02,
        ("reasoning", "sort"): 0.03,
        ("reasoning", "walk"): 0.04,
        ("edit", "move"): 0.03,
        ("edit", "replace"): 0.03,
        ("edit", "extract"): 0.02,
        ("edit", "style"): 0.02,
    },
    # Answers whose last words follow from the words before them.
    "worked": {
        ("understand", "two pictures"): 0.45,
        ("understand", "counting"): 0.25,
        ("understand", "style"): 0.15,
        ("understand", "relation"): 0.10,
        ("think", "sequence"): 0.05,
    },
    # Several turns, frames and steps: what a short answer does not teach.
    "told": {
        ("story", "two"): 0.09,
        ("story", "three"): 0.13,
        ("story", "four"): 0.13,
        ("story", "five"): 0.10,
        ("story", "six"): 0.10,
        ("story", "open"): 0.05,
        ("dialogue", "questions"): 0.06,
        ("dialogue", "edit"): 0.10,
        ("dialogue", "draw"): 0.05,
        ("reasoning", "sort"): 0.05,
        ("reasoning", "walk"): 0.02,
        ("understand", "caption"): 0.09,
        ("understand", "style"): 0.03,
    },
    # Rewarded (training/reward): what an answer is judged by is in the record's "meta".
    "counting": {("understand", "counting"): 1.0},
    "talk": {("dialogue", "questions"): 0.4, ("dialogue", "edit"): 0.3, ("dialogue", "draw"): 0.3},
    "unreasoned": {(UNREASONED, None): 1.0},
    "answered": {("t2i", None): 0.3, ("understand", None): 0.4, ("edit", None): 0.3},
}
"""The mixtures of the shipped model: few things, their places, all tasks, more of reading, names in questions and edits,
more of what is learned late or got wrong, answers that are worked out, and what is told in several turns or frames. Behind
these, mixtures for training from rewards."""

MOST_THINGS = {"places": 2}
"""Mixtures whose pictures hold so many things at most."""


@dataclass(frozen=True)
class ScenePicture:
    """A scene, rendered at `side` pixels when it is opened."""

    scene: Scene
    side: int

    @property
    def name(self) -> str:
        return json.dumps(self.scene.to_json())

    def key(self) -> object:
        return self

    def open(self) -> Image.Image:
        return render(self.scene, self.side)


@dataclass(frozen=True)
class WorldRecords:
    """`count` records of the split, drawn by `weights`, with pictures of `side` pixels and `most` things."""

    count: int
    seed: int
    weights: Weights
    side: int = 96
    split: str = "train"
    most: int = len(CELLS)

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"unknown split {self.split!r}; allowed: {', '.join(SPLITS)}")
        if self.count < 1:
            raise UserError(f"the number of records is {self.count}; allowed: 1 and more")

    @classmethod
    def from_name(cls, name: str, side: int) -> WorldRecords:
        """`world:COUNT:SEED[:MIXTURE[:SPLIT]]`."""
        parts = name.split(":")[1:]
        if not 2 <= len(parts) <= 4 or not all(part.isdecimal() for part in parts[:2]):
            raise UserError(f"{name!r} is not understood; allowed: world:COUNT:SEED[:MIXTURE[:SPLIT]]")
        chosen, split = [*parts[2:], *("default", "train")[len(parts) - 2 :]]
        most = MOST_THINGS.get(chosen, len(CELLS))
        return cls(int(parts[0]), int(parts[1]), mixture(chosen), side, split, most)

    @property
    def name(self) -> str:
        """Equal for equal records."""
        weights = " ".join(f"{task}/{kind or '*'}={share:g}" for (task, kind), share in self.weights.items())
        most = f" up to {self.most}" if self.most < len(CELLS) else ""
        return f"world:{self.count}:{self.seed} {self.split} {self.side} px{most} {weights}"

    def samples(self, start: int, count: int) -> Iterator[Sample]:
        """Samples start, start + 1, ..."""
        choices, shares = list(self.weights), list(self.weights.values())
        for block in range(start // BLOCK, -(-(start + count) // BLOCK)):
            rng = random.Random(f"world/{self.seed}/{block}")
            for number in range(block * BLOCK, (block + 1) * BLOCK):
                sample = until(lambda: self._few(self._sample(rng, *rng.choices(choices, shares)[0])))  # noqa: B023
                if rng.random() < TYPING_MISTAKES:
                    sample.turns[-1].parts[-1] = mistyped(rng, sample.turns[-1].text)
                if start <= number < start + count:
                    yield sample

    def _sample(self, rng: random.Random, task: str, kind: str | None) -> Sample:
        if task == DESCRIBED:
            return _described(rng, sample_task(rng, "t2i", self.split, kind=kind))
        if task == UNREASONED:
            return _unreasoned(sample_task(rng, "think", self.split, kind=kind))
        if task == DRILL:
            assert kind is not None  # MIXTURES names the kind of every drill
            return sample_drill(rng, kind, self.split)
        return sample_task(rng, task, self.split, kind=kind)

    def _few(self, sample: Sample) -> Sample | None:
        return sample if all(len(scene.things()) <= self.most for scene in sample.scenes()) else None

    def conversations(self, start: int, count: int) -> Iterator[Conversation]:
        """The same as records."""
        for number, sample in enumerate(self.samples(start, count), start):
            yield conversation_of(sample, f"world-{self.seed}-{number}", self.side)


class WorldSource:
    """Samples of the small world as conversations; nothing is read."""

    def __init__(self, world: WorldRecords) -> None:
        self.world, self.name = world, world.name

    def chunks(self, size: int = CHUNK) -> list[Chunk]:
        return [
            Chunk(self.name, 0, start + 1, min(size, self.world.count - start)) for start in range(0, self.world.count, size)
        ]

    def read(self, chunk: Chunk, bad: BadRecords) -> Iterator[Conversation]:
        yield from self.world.conversations(chunk.first - 1, chunk.count)


def open_world(name: str, side: int) -> WorldSource:
    """The source `world:COUNT:SEED[:MIXTURE[:SPLIT]]` with pictures of `side` pixels (plug-in of data/sources.py)."""
    return WorldSource(WorldRecords.from_name(name, side))


def _described(rng: random.Random, drawn: Sample) -> Sample:
    """The picture of a drawing sample and its caption."""
    (scene,) = drawn.answer
    assert isinstance(scene, Scene)  # t2i answers with its scene alone
    turn = Turn("user", [scene, Speaker(rng, "train").pick("caption")])
    return Sample("understand", "caption", [turn], [caption(scene)], {})


def _unreasoned(thought: Sample) -> Sample:
    """The same request, answered with the image alone."""
    return Sample("t2i", thought.kind, thought.turns, thought.answer[-1:], thought.expect)


def conversation_of(sample: Sample, name: str, side: int) -> Conversation:
    """A sample as a record: its turns, then the answer. Of a dialogue every answer is learned. meta: what a checker asks."""

    def parts(items: list[str | Scene]) -> tuple[str | Picture, ...]:
        return tuple(part if isinstance(part, str) else ScenePicture(part, side) for part in items)

    messages = [Message(turn.role, parts(turn.parts)) for turn in sample.turns]
    messages.append(Message("assistant", parts(sample.answer)))
    template = _TEMPLATE_OF.get(sample.task, sample.task)
    return Conversation(name, template, tuple(messages), sample.task == "dialogue", sample.task, name, meta=sample.expect)


def mixture(name: str) -> Weights:
    """A mixture by name; UserError for another."""
    if name not in MIXTURES:
        raise UserError(f"unknown mixture {name!r}; allowed: {', '.join(MIXTURES)}")
    return MIXTURES[name]


def parse_shares(shares: list[str]) -> Weights:
    """`task=weight` or `task/kind=weight`, several; UserError naming what is allowed."""
    found: dict[tuple[str, str | None], float] = {}
    for share in shares:
        name, _, weight = share.partition("=")
        task, _, kind = name.partition("/")
        if task not in KINDS or task not in TEMPLATES:
            raise UserError(f"unknown task {task!r}; allowed: {', '.join(name for name in KINDS if name in TEMPLATES)}")
        if kind and kind not in KINDS[task]:
            raise UserError(f"unknown kind {kind!r} of {task}; allowed: {', '.join(KINDS[task])}")
        try:
            found[task, kind or None] = float(weight)
        except ValueError:
            raise UserError(f"the share {share!r} is not understood; allowed: task=weight or task/kind=weight") from None
        if not 0 < found[task, kind or None] < float("inf"):
            raise UserError(f"the share {share!r} must be above 0")
    return found
