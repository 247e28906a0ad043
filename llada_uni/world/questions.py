"""Questions about one picture or two, with the one canonical answer each.

Where an answer must be worked out, it says how first, and the words that decide, which are `key`, stand last: "top two, middle
zero, bottom one: three"; "cat top left, dog top right: yes". Blocks are written from left to right, so at the other end those
words would often be written before what they follow from (docs/log.md).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from llada_uni.world.arrangement import RELATIONS
from llada_uni.world.captions import caption, placed_name
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, DIGITS, POSITIONS, ROWS, SIDE, STYLES, THINGS
from llada_uni.world.samples import Sample, Turn, until
from llada_uni.world.sampling import any_number, number_scene, sample_scene
from llada_uni.world.scene import Scene, Thing, placed
from llada_uni.world.split import in_split
from llada_uni.world.wordings import NUMBERS, Speaker, article

UNDERSTAND_KINDS = {
    "caption": 0.13,
    "what-is-where": 0.28,
    "counting": 0.16,
    "color": 0.05,
    "style": 0.09,
    "presence": 0.08,
    "relation": 0.08,
    "number reading": 0.06,
    "two pictures": 0.07,
}
TEMPLATES_OF = {
    "what-is-where": ("what", "where"),
    "number reading": ("read",),
    "two pictures": ("has", "both", "same ground"),
}
"""Names in wordings.TEMPLATES of the questions of a kind, where they are not the kind's own."""
DECIDING = ("yes", "no", "first", "second", "both", "neither")
"""Words that decide an answer, beside names of the world."""
_STATEMENTS = ("tell", "find", "count", "describe", "read", "please")


@dataclass(frozen=True)
class Asked:
    """A question, its whole answer, and the words of the answer that decide (None: all of it)."""

    question: str
    answer: str
    key: str | None = None

    def expect(self) -> dict:
        """For a Sample."""
        return {"answer": self.answer, "key": self.key}


def unique(scene: Scene) -> list[tuple[int, Thing]]:
    """The things whose concept stands once in the scene, digits aside: those that a bare name points at."""
    names = scene.names()
    return [(i, t) for i, t in scene.things() if names.count(t.concept) == 1 and t.concept not in DIGITS]


def absent(rng: random.Random, *scenes: Scene) -> str:
    """A concept that is in none of the scenes."""
    names = {name for scene in scenes for name in scene.names()}
    while (name := rng.choice(THINGS)) in names:
        pass
    return name


def ask(rng: random.Random, scene: Scene, kind: str, say: Speaker) -> Asked | None:
    """A question of the kind about one scene; None where the scene does not allow that kind."""
    asked = _KINDS[kind](rng, scene, say)
    return asked and marked(say, asked)


def marked(say: Speaker, asked: Asked) -> Asked:
    """With a question mark, mostly."""
    is_question = asked.question.split()[0] not in _STATEMENTS
    return Asked(asked.question + "?", asked.answer, asked.key) if is_question and say.chance(0.7) else asked


def _what_is_where(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    single = unique(scene)
    if single and rng.random() < 0.35:
        cell, thing = rng.choice(single)
        return Asked(say.pick("where").format(x=thing.concept), POSITIONS[cell])
    empty, things = scene.empty(), scene.things()
    template = say.pick("what")
    if empty and (not things or rng.random() < 0.15):
        return Asked(template.format(p=POSITIONS[rng.choice(empty)]), "nothing")
    cell, thing = rng.choice(things)
    return Asked(template.format(p=POSITIONS[cell]), thing.concept)


def by_rows(cells: list[int]) -> str:
    """How many of the cells lie in each row: "top two, middle zero, bottom one"."""
    return ", ".join(f"{name} {NUMBERS[sum(cell // SIDE == row for cell in cells)]}" for row, name in enumerate(ROWS))


def _counting(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    things = scene.things()
    if rng.random() < 0.2:
        plural, cells = "things", [i for i, _ in things]
    else:
        names = [n for n in scene.names() if n not in DIGITS]
        name = absent(rng, scene) if not names or rng.random() < 0.1 else rng.choice(names)
        plural, cells = CONCEPTS[name].plural, [i for i, t in things if t.concept == name]
    count = NUMBERS[len(cells)]
    return Asked(say.pick("counting").format(xs=plural), f"{by_rows(cells)}: {count}", count)


def _color(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    return Asked(say.pick("color"), scene.background)


def _style(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    single = unique(scene)
    if not single:
        return None
    cell, thing = rng.choice(single)
    return Asked(say.pick("style").format(x=thing.concept), f"{POSITIONS[cell]}: {thing.style}", thing.style)


def _presence(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    single = unique(scene)
    template = say.pick("presence")
    if single and rng.random() < 0.5:
        cell, thing = rng.choice(single)
        return Asked(template.format(a=article(thing.concept)), f"{POSITIONS[cell]}: yes", "yes")
    return Asked(template.format(a=article(absent(rng, scene))), "no")


def _relation(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    single = unique(scene)
    if len(single) < 2:
        return None
    (i, one), (j, other) = rng.sample(single, 2)
    key = rng.choice(("yes", "no"))
    fitting = [name for name, holds in RELATIONS.items() if holds(i, j) == (key == "yes")]
    question = say.pick("relation").format(x=one.concept, y=other.concept, r=rng.choice(fitting))
    places = ", ".join(placed_name(cell, thing, style=False) for cell, thing in ((i, one), (j, other)))
    return Asked(question, f"{places}: {key}", key)


def _number_reading(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    number = scene.number()
    return Asked(say.pick("read"), number) if number is not None else None


def _caption(rng: random.Random, scene: Scene, say: Speaker) -> Asked | None:
    return Asked(say.pick("caption"), caption(scene))


_KINDS = {
    "caption": _caption,
    "what-is-where": _what_is_where,
    "counting": _counting,
    "color": _color,
    "style": _style,
    "presence": _presence,
    "relation": _relation,
    "number reading": _number_reading,
}


def compare(rng: random.Random, first: Scene, second: Scene, say: Speaker) -> Asked | None:
    """A question about two pictures: which one has a thing, what both have, whether their backgrounds are the same."""
    how = rng.choice(("has", "both", "same ground"))
    if how == "same ground":
        key = "yes" if first.background == second.background else "no"
        return marked(say, Asked(say.pick(how), f"{first.background} and {second.background}: {key}", key))
    if how == "both":
        both = set(first.names()) & set(second.names())
        if len(both) != 1:
            return None
        lists = " and ".join(", ".join(scene.names()) for scene in (first, second))
        (key,) = both
        return marked(say, Asked(say.pick(how), f"{lists}: {key}", key))
    # Where a thing is asked for, it stands at most once in either picture, so that its place can be said.
    ones, twos = ({t.concept: cell for cell, t in unique(scene)} for scene in (first, second))
    alone = sorted(n for n in ones.keys() ^ twos.keys() if (first.names() + second.names()).count(n) == 1)
    shared, missing = sorted(ones.keys() & twos.keys()), [absent(rng, first, second)]
    name = rng.choice(rng.choice([names for names in (alone, alone, shared, missing) if names]))
    key = {(1, 0): "first", (0, 1): "second", (1, 1): "both", (0, 0): "neither"}[name in ones, name in twos]
    places = " and ".join(POSITIONS[cells[name]] if name in cells else "no" for cells in (ones, twos))
    return marked(say, Asked(say.pick(how).format(a=article(name)), f"{places}: {key}", key))


def question_scene(rng: random.Random, kind: str, split: str) -> Scene:
    """A scene that suits the kind: counting needs equal things, relations two different ones, reading a number."""
    if kind == "number reading":
        return until(lambda: _number_scene(rng, split))
    if kind == "counting":
        return until(lambda: _counting_scene(rng, split))
    if kind == "relation":
        return sample_scene(rng, split, things=rng.choice((2, 2, 3, 4)))
    return sample_scene(rng, split, numbers=0.08 if kind in ("caption", "color") else 0.0)


def _number_scene(rng: random.Random, split: str) -> Scene | None:
    scene = number_scene(rng, any_number(rng), rng.randrange(SIDE), rng.choice((0, 0, 1, 2)))
    return scene if in_split(scene, split) else None


def _counting_scene(rng: random.Random, split: str) -> Scene | None:
    """One to nine things of a kind anywhere, sometimes some others."""
    count = rng.randint(1, len(CELLS))
    names = [rng.choice(THINGS)] * count
    names += rng.sample(THINGS, min(rng.choice((0, 0, 1, 2)), len(CELLS) - count))
    style, color = rng.choice(STYLES), rng.choice(tuple(COLORS))
    scene = placed({cell: Thing(n, style) for cell, n in zip(rng.sample(CELLS, len(names)), names, strict=True)}, color)
    return scene if in_split(scene, split) else None


def _two_scenes(rng: random.Random, split: str) -> tuple[Scene, Scene] | None:
    """Two pictures that may share one thing and the background; one of them holds what is held out, where that is asked."""
    first, second = sample_scene(rng, split, rng.choice((1, 2, 3))), sample_scene(rng, split, rng.choice((1, 2, 3)))
    if rng.random() < 0.5:
        second = second.replace_cell(*rng.choice(first.things()))
    if rng.random() < 0.4:
        second = second.with_background(first.background)
    return (first, second) if in_split(second, split) else None


def sample_understand(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A picture or two, a question of the kind and its answer."""
    say = Speaker(rng, wordings)

    def make() -> tuple[list[Scene], Asked] | None:
        if kind == "two pictures":
            first, second = until(lambda: _two_scenes(rng, split))
            scenes, asked = [first, second], compare(rng, first, second, say)
        else:
            scenes = [question_scene(rng, kind, split)]
            asked = ask(rng, scenes[0], kind, say)
        return None if asked is None else (scenes, asked)

    scenes, asked = until(make)
    return Sample("understand", kind, [Turn("user", [*scenes, asked.question])], [asked.answer], asked.expect())
