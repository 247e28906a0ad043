"""Prompts whose picture must be reasoned out first: the answer is a short thought in words, then the scene.

The thought ends in plain words for the picture ("two plus three is five: five apples"), so that drawing it is drawing from a
description. Kinds: sum, minus, double, more (counts relative to another), opposite (the place across the middle), riddle,
sequence (the number that comes next), fact (a color that something has).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from llada_uni.world.arrangement import PIPS, cells_of
from llada_uni.world.captions import quantity
from llada_uni.world.concepts import CELLS, CONCEPTS, POSITIONS, SIDE, THINGS
from llada_uni.world.drawing import Group, Plan, on
from llada_uni.world.samples import Sample, Turn, open_color, open_style, pinned, until
from llada_uni.world.split import in_split
from llada_uni.world.wordings import NUMBERS, Speaker, article

THINK_KINDS = {
    "sum": 0.16,
    "minus": 0.14,
    "double": 0.08,
    "more": 0.14,
    "opposite": 0.14,
    "riddle": 0.16,
    "sequence": 0.08,
    "fact": 0.10,
}
RIDDLES = {
    "cat": "the animal that says meow",
    "dog": "the animal that says woof",
    "cow": "the animal that says moo",
    "pig": "the animal that says oink",
    "duck": "the animal that says quack",
    "frog": "the animal that says ribbit",
    "owl": "the animal that says hoot",
    "lion": "the animal that says roar",
    "bee": "the animal that says buzz",
    "mouse": "the animal that says squeak",
    "monkey": "the animal that loves bananas",
    "rabbit": "the animal that loves carrots",
    "panda": "the animal that eats bamboo",
    "giraffe": "the animal with the longest neck",
    "elephant": "the animal with a trunk",
    "snail": "the animal that carries its house",
    "penguin": "the bird of the ice",
    "octopus": "the animal with eight arms",
    "rocket": "the thing that flies to the stars",
    "boat": "the thing that sails on the sea",
    "key": "the thing that opens a door",
    "umbrella": "the thing that keeps off the rain",
    "crown": "the thing that a king wears",
    "camera": "the thing that takes photos",
    "magnet": "the thing that pulls iron",
    "cactus": "the plant of the desert",
    "trophy": "the thing that a winner gets",
    "snowman": "the man made of snow",
    "lemon": "the fruit that is sour",
    "bulb": "the thing that gives light",
}
FACTS = {
    "green": ("grass", "a leaf"),
    "blue": ("the sky", "the sea"),
    "yellow": ("the sun", "a banana"),
    "white": ("snow", "milk"),
    "pink": ("a pig", "a flamingo"),
    "gray": ("a mouse", "an elephant"),
    "orange": ("a carrot", "a pumpkin"),
    "purple": ("a grape", "lavender"),
}
_MOST = max(PIPS)


@dataclass(frozen=True)
class Problem:
    """words: the question, "{s}" where a style may stand; steps: the thought before the plain words; things: (concept, number);
    cell: the place that was found; number: digits that were found; color: the background that was found."""

    words: str
    steps: str
    things: tuple[tuple[str, int], ...] = ()
    cell: int | None = None
    number: str | None = None
    color: str | None = None


def _counted(rng: random.Random, kind: str) -> Problem:
    name = rng.choice(THINGS)
    if kind == "double":
        a = rng.randint(1, _MOST // 2)
        return Problem(f"twice {quantity(name, a)}", f"twice {NUMBERS[a]} is {NUMBERS[2 * a]}", ((name, 2 * a),))
    sign = "plus" if kind == "sum" else "minus"
    a, b = rng.randint(1, _MOST), rng.randint(1, _MOST)
    result = a + b if kind == "sum" else a - b
    while not 1 <= result <= _MOST:
        a, b = rng.randint(1, _MOST), rng.randint(1, _MOST)
        result = a + b if kind == "sum" else a - b
    noun = CONCEPTS[name].plural if result > 1 else name
    words = f"{NUMBERS[a]} {sign} {NUMBERS[b]} {{s}}{noun}"
    return Problem(words, f"{NUMBERS[a]} {sign} {NUMBERS[b]} is {NUMBERS[result]}", ((name, result),))


def _more(rng: random.Random) -> Problem:
    (name, other), base = rng.sample(THINGS, 2), rng.randint(1, SIDE)
    step = rng.choice([s for s in (-1, 0, 1) if 1 <= base + s <= SIDE])
    first, count = quantity(name, base), base + step
    things = ((name, base), (other, count))
    if step == 0:
        return Problem(f"{first} and as many {CONCEPTS[other].plural}", f"as many is {NUMBERS[count]}", things)
    word, sign = ("more", "plus") if step > 0 else ("less", "minus")
    words = f"{first} and one {word} {other} than {CONCEPTS[name].plural}"
    return Problem(words, f"{NUMBERS[base]} {sign} one is {NUMBERS[count]}", things)


def _problem(rng: random.Random, kind: str) -> Problem:
    if kind in ("sum", "minus", "double"):
        return _counted(rng, kind)
    if kind == "more":
        return _more(rng)
    if kind == "riddle":
        name = rng.choice(tuple(RIDDLES))
        return Problem(RIDDLES[name], f"this is {article(name)}", ((name, 1),))
    if kind == "opposite":
        name, cell = rng.choice(THINGS), rng.choice([c for c in CELLS if c != len(CELLS) // 2])
        across = POSITIONS[len(CELLS) - 1 - cell]
        return Problem(
            f"{article(name)} at the opposite of the {across}",
            f"the opposite of {across} is {POSITIONS[cell]}",
            ((name, 1),),
            cell,
        )
    if kind == "sequence":
        step, start = rng.choice((1, 2, 3, 5)), rng.randint(1, 90)
        shown, found = [str(start + i * step) for i in range(3)], str(start + 3 * step)
        return Problem(f"the number after {', '.join(shown)}", f"{shown[-1]} plus {step} is {found}", number=found)
    color = rng.choice(tuple(FACTS))
    what, name = rng.choice(FACTS[color]), rng.choice(THINGS)
    return Problem(f"{article(name)} on the color of {what}", f"the color of {what} is {color}", ((name, 1),), color=color)


def _plan(rng: random.Random, problem: Problem) -> Plan:
    """What the problem asks to be drawn."""
    said = rng.random() < 0.6
    ground = problem.color is not None or rng.random() < 0.4
    style, color = open_style(rng, said), problem.color or open_color(rng, ground)
    cells = (
        [(problem.cell,)] if problem.cell is not None else cells_of([n for _, n in problem.things]) if problem.things else []
    )
    groups = tuple(Group(name, style, c) for (name, _), c in zip(problem.things, cells, strict=True))
    manner = "once" if said else "none"
    plan = Plan(groups, color, manner, problem.cell is not None, ground, digit_style=style)
    return replace(plan, number=problem.number) if problem.number else plan


def sample_think(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A prompt to reason about, the thought and the scene."""

    def make() -> tuple[Problem, Plan] | None:
        problem = _problem(rng, kind)
        plan = _plan(rng, problem)
        if not in_split(plan.scene(), split):
            return None
        fine = split != "heldout" or pinned(plan.expect()["objects"], plan.number)
        return (problem, plan) if fine else None

    (problem, plan), say = until(make), Speaker(rng, wordings)
    inside = "{s}" in problem.words and plan.style == "once" and say.chance(0.5)
    words = problem.words.format(s=f"{plan.digit_style} " if inside else "") if "{s}" in problem.words else problem.words
    if plan.style == "once" and not inside:
        words += " " + say.pick("in style").format(s=plan.digit_style)
    if plan.ground_said and problem.color is None:
        words += " " + on(say, plan.background)
    thought = f"{problem.steps}: {plain_words(plan)}"
    prompt = say.pick("draw").format(d=words)
    return Sample("think", kind, [Turn("user", [prompt])], [thought, plan.scene()], plan.expect() | {"thought": thought})


def plain_words(plan: Plan) -> str:
    """The picture of a plan in the plainest words, always the same."""
    style = plan.digit_style if plan.style == "once" else None
    if plan.number:
        said = f"the number {plan.number}" + (f" in {style} style" if style else "")
    else:
        said = " and ".join(quantity(g.concept, len(g.cells), style) for g in plan.groups)
    if plan.places_said:
        said += f" at the {POSITIONS[plan.groups[0].cells[0]]}"
    return said + (f" on {plan.background}" if plan.ground_said else "")
