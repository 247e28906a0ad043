"""Step-by-step reasoning with pictures: every step is a sentence and a picture, the last words are the result.

Kinds: sort (three digits, one exchange a step), pattern (what comes next, one thing a step), walk (a small board: somebody goes
to something, one cell a step, around what is in the way).
"""

from __future__ import annotations

import random
from collections import deque

from llada_uni.world.concepts import CELLS, COLORS, DIGITS, POSITIONS, SIDE, STYLES, THINGS
from llada_uni.world.samples import Part, Sample, Turn, until
from llada_uni.world.sampling import number_scene
from llada_uni.world.scene import Scene, Thing, placed
from llada_uni.world.split import in_split
from llada_uni.world.stories import CHARACTERS, OBJECTS
from llada_uni.world.wordings import Speaker, article

REASONING_KINDS = {"sort": 0.34, "pattern": 0.33, "walk": 0.33}
_STEPS = {"right": 1, "down": SIDE, "left": -1, "up": -SIDE}  # in the order in which they are tried
_MOST_STEPS = 4
Solved = tuple[Scene, str, list[Part], str]


def _sort(rng: random.Random, say: Speaker) -> Solved | None:
    digits = rng.sample(DIGITS[1:], SIDE)
    row = rng.randrange(SIDE)
    scene = number_scene(rng, "".join(digits), row)
    start = scene
    steps: list[Part] = []
    for column, smallest in enumerate(sorted(digits)):
        here, there = SIDE * row + column, SIDE * row + digits.index(smallest)
        if here == there:
            continue
        one, other = scene.at(here), scene.at(there)
        scene = scene.replace_cell(here, other).replace_cell(there, one)
        digits[there - SIDE * row], digits[column] = one.concept, smallest
        steps += [f"swap {one.concept} and {smallest}: {scene.number()}", scene]
    return (start, say.pick("sort"), steps, f"sorted: {scene.number()}") if steps else None


def _pattern(rng: random.Random, say: Speaker) -> Solved:
    period = rng.choice((2, 3))
    style = rng.choice(STYLES)
    names = rng.sample(THINGS, period)
    full = placed({cell: Thing(names[cell % period], style) for cell in CELLS}, rng.choice(tuple(COLORS)))
    missing = rng.randint(1, 3)
    scene = start = placed(dict(full.things()[:-missing]), full.background)
    steps: list[Part] = []
    for cell in CELLS[-missing:]:
        scene = scene.replace_cell(cell, full.cells[cell])
        steps += [f"next is {article(full.at(cell).concept)} at the {POSITIONS[cell]}", scene]
    return start, say.pick("pattern"), steps, f"the last is {article(full.at(CELLS[-1]).concept)}"


def way(start: int, goal: int, walls: set[int]) -> list[str] | None:
    """The shortest way as directions, the first found in the order right, down, left, up; None without any."""
    found: dict[int, list[str]] = {start: []}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        if cell == goal:
            return found[cell]
        for name, step in _STEPS.items():
            there = cell + step
            same_row = there // SIDE == cell // SIDE
            if there in CELLS and (same_row or abs(step) == SIDE) and there not in walls and there not in found:
                found[there] = [*found[cell], name]
                queue.append(there)
    return None


def _walk(rng: random.Random, say: Speaker) -> Solved | None:
    start, goal, *walls = rng.sample(CELLS, 2 + rng.choice((1, 2, 2)))
    directions = way(start, goal, set(walls))
    if directions is None or len(directions) > _MOST_STEPS:
        return None
    style = rng.choice(STYLES)
    who, what, wall = Thing(rng.choice(CHARACTERS), style), *(Thing(n, style) for n in rng.sample(OBJECTS, 2))
    board = {goal: what} | {cell: wall for cell in walls}
    color, at = rng.choice(tuple(COLORS)), start
    begin = placed(board | {at: who}, color)
    steps: list[Part] = []
    for name in directions:
        at += _STEPS[name]
        steps += [f"the {who.concept} goes {name} to the {POSITIONS[at]}", placed(board | {at: who}, color)]
    text = say.pick("walk").format(x=who.concept, y=what.concept)
    return begin, text, steps, f"the {who.concept} has the {what.concept}"


_KINDS = {"sort": _sort, "pattern": _pattern, "walk": _walk}


def sample_reasoning(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A picture and a task; the steps with their pictures; the result. The first picture belongs to the split."""
    say = Speaker(rng, wordings)

    def make() -> Sample | None:
        made = _KINDS[kind](rng, say)
        if made is None:
            return None
        start, text, steps, final = made
        scenes = [part for part in steps if isinstance(part, Scene)]
        if not in_split(start, split) or (split != "heldout" and not all(in_split(s, split) for s in scenes)):
            return None
        return Sample("reasoning", kind, [Turn("user", [start, text])], [*steps, final], {"scenes": scenes, "final": final})

    return until(make)
