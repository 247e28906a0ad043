"""Illustrated stories: sentences and scenes in turn; named characters persist and something happens each time.

A frame's text is what happens and, behind a colon, how things stand then: "mia the cat finds a key: flat cat middle left, flat
key top right on green". The drawing copies the second half, which follows from the one before and from what happens. All of it
is a small grammar: `read_frame` says what a frame must show, `follows` whether one frame comes from the other as told.
What nobody mentions stays where it was. The kind is the number of frames, which the request names, or "open": neither the
number nor the names are said, and both follow from a rule.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llada_uni.world.arrangement import PIPS
from llada_uni.world.captions import placed_name
from llada_uni.world.concepts import CELLS, COLUMNS, CONCEPTS, POSITIONS, ROWS, STYLES, THINGS
from llada_uni.world.samples import COLOR_NAMES, Sample, Turn, open_style, pinned, until, wanted
from llada_uni.world.scene import Scene, Thing, placed
from llada_uni.world.split import in_split
from llada_uni.world.wordings import NUMBERS, Speaker, article, joined, normal

STORY_KINDS = {"two": 0.24, "three": 0.28, "four": 0.22, "five": 0.08, "six": 0.06, "open": 0.12}
FRAMES = {kind: 3 if kind == "open" else NUMBERS.index(kind) for kind in STORY_KINDS}
PEOPLE = ("mia", "tom", "leo", "zoe", "max", "lily", "sam", "emma")
CHARACTERS = (*(n for n, c in CONCEPTS.items() if c.category == "animal"), "robot", "ghost", "snowman")
OBJECTS = tuple(n for n in THINGS if n not in CHARACTERS)
PLACES = {
    "green": "in the park",
    "blue": "by the sea",
    "yellow": "in the desert",
    "white": "in the snow",
    "pink": "at the party",
    "gray": "in the city",
    "orange": "at the market",
    "purple": "in the castle",
}
_COLOR_OF = {phrase.split()[-1]: color for color, phrase in PLACES.items()}
_FINDS, _GOES, _EATS, _STARTS = ("finds", "sees", "gets"), ("goes", "walks", "runs"), ("eats",), ("is", "plays", "waits")
_MANY = {"is": "are", "plays": "play", "waits": "wait", "goes": "go", "walks": "walk", "runs": "run"}
_MOST_OBJECTS = 2


@dataclass(frozen=True)
class State:
    """Things with their cells in the order in which they came, characters first, and the background."""

    things: tuple[tuple[Thing, int], ...]
    background: str

    def scene(self) -> Scene:
        """The picture."""
        return placed({cell: thing for thing, cell in self.things}, self.background)

    def words(self) -> str:
        """How things stand."""
        return ", ".join(placed_name(cell, thing) for thing, cell in self.things) + f" on {self.background}"

    def empty(self) -> list[int]:
        return [i for i in CELLS if i not in {cell for _, cell in self.things}]

    def added(self, thing: Thing, cell: int) -> State:
        return replace(self, things=(*self.things, (thing, cell)))

    def removed(self, concept: str) -> State:
        return replace(self, things=tuple((t, c) for t, c in self.things if t.concept != concept))

    def moved(self, concept: str, goal: int) -> State:
        return replace(self, things=tuple((t, goal if t.concept == concept else c) for t, c in self.things))


@dataclass(frozen=True)
class Cast:
    """Names of the characters by their concepts."""

    names: tuple[tuple[str, str], ...]

    def called(self, concept: str) -> str:
        return f"{dict(self.names)[concept]} the {concept}"

    def all(self) -> str:
        return joined([self.called(concept) for concept, _ in self.names])


def _find(rng: random.Random, cast: Cast, s: State) -> tuple[str, State] | None:
    if not s.empty() or len(s.things) == len(cast.names) + _MOST_OBJECTS:
        return None
    there = {t.concept for t, _ in s.things}
    thing = Thing(rng.choice([n for n in OBJECTS if n not in there]), s.things[0][0].style)
    who, cell = rng.choice(cast.names)[0], rng.choice(s.empty())
    return f"{cast.called(who)} {rng.choice(_FINDS)} {article(thing.concept)} at the {POSITIONS[cell]}", s.added(thing, cell)


def _move(rng: random.Random, cast: Cast, s: State) -> tuple[str, State] | None:
    if not s.empty():
        return None
    who, goal = rng.choice(cast.names)[0], rng.choice(s.empty())
    return f"{cast.called(who)} {rng.choice(_GOES)} to the {POSITIONS[goal]}", s.moved(who, goal)


def _go(rng: random.Random, cast: Cast, s: State) -> tuple[str, State] | None:
    color = rng.choice([c for c in COLOR_NAMES if c != s.background])
    verb = rng.choice(_GOES)
    verb = _MANY[verb] if len(cast.names) > 1 else verb
    return f"{cast.all()} {verb} to the {PLACES[color].split()[-1]}", replace(s, background=color)


def _eat(rng: random.Random, cast: Cast, s: State) -> tuple[str, State] | None:
    food = [t.concept for t, _ in s.things if CONCEPTS[t.concept].category == "food"]
    if not food:
        return None
    name = rng.choice(food)
    return f"{cast.called(rng.choice(cast.names)[0])} {rng.choice(_EATS)} the {name}", s.removed(name)


_EVENTS = ((_find, 4), (_move, 3), (_go, 3), (_eat, 4))


def _next(rng: random.Random, cast: Cast, s: State, split: str) -> tuple[str, State]:
    """The next frame; in the train split only frames without held-out combinations come about."""

    def make() -> tuple[str, State] | None:
        event = rng.choices([e for e, _ in _EVENTS], [w for _, w in _EVENTS])[0]
        made = event(rng, cast, s)
        return made if made and (split in ("heldout", "any") or in_split(made[1].scene(), split)) else None

    return until(make)


def usual_names(concepts: Sequence[str]) -> list[str]:
    """What characters are called when the request leaves it open: always the same, and no two of them alike."""
    names: list[str] = []
    for concept in concepts:
        start = CHARACTERS.index(concept)
        names.append(next(n for n in (*PEOPLE[start % len(PEOPLE) :], *PEOPLE) if n not in names))
    return names


def _opening(rng: random.Random, split: str, named: bool) -> tuple[Cast, State, bool] | None:
    """Who, where, and whether the request says the style. named: whether it says what the characters are called."""
    concepts = rng.sample(CHARACTERS, 1 if rng.random() < 0.4 else 2)
    said = rng.random() < 0.7
    style = open_style(rng, said)
    cells = PIPS[len(concepts)]
    state = State(tuple((Thing(n, style), c) for n, c in zip(concepts, cells, strict=True)), rng.choice(COLOR_NAMES))
    if split == "heldout" and not pinned([wanted(n, style if said else None) for n in concepts]):
        return None
    names = rng.sample(PEOPLE, len(concepts)) if named else usual_names(concepts)
    cast = Cast(tuple(zip(concepts, names, strict=True)))
    return (cast, state, said) if in_split(state.scene(), split) else None


def sample_story(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A request for a story about one or two characters, and the story.

    In the held-out split the request itself holds a held-out combination (two characters, or one in a style).
    """
    named = kind != "open"
    (cast, state, styled), say = until(lambda: _opening(rng, split, named)), Speaker(rng, wordings)
    style, color, there = state.things[0][0].style, state.background, rng.random() < 0.4
    who = cast.all() if named else joined([article(concept) for concept, _ in cast.names])
    asked = f"{who}{' ' + PLACES[color] if there else ''}{f' in {style} style' if styled else ''}"
    asked += f" in {kind} pictures" if named else ""
    start = rng.choice(_STARTS)
    text = f"{cast.all()} {_MANY[start] if len(cast.names) > 1 else start} {PLACES[color]}"
    answer: list[str | Scene] = [f"{text}: {state.words()}", state.scene()]
    for _ in range(FRAMES[kind] - 1):
        text, state = _next(rng, cast, state, split)
        answer += [f"{text}: {state.words()}", state.scene()]
    expect = {
        "characters": [concept for concept, _ in cast.names],
        "style": style if styled else None,
        "background": color if there else None,
        "frames": FRAMES[kind],
    }
    return Sample("story", kind, [Turn("user", [say.pick("story").format(d=asked)])], answer, expect)


# ---
# Reading a story back

_THING = re.compile(rf"({'|'.join(STYLES)}) ({'|'.join(CONCEPTS)}) ({'|'.join(ROWS)}) ({'|'.join(COLUMNS)})")


@dataclass(frozen=True)
class Frame:
    """What a frame's text says: what happens, and how things stand then."""

    event: str
    state: State


def read_frame(text: str) -> Frame | None:
    """The two halves of a frame's text; None where it is outside the grammar."""
    event, colon, standing = normal(text).partition(": ")
    listed, _, color = standing.rpartition(" on ")
    parts = listed.split(", ")
    found = [match for part in parts if (match := _THING.fullmatch(part))]
    if not colon or color not in COLOR_NAMES or len(found) < len(parts):
        return None
    things = tuple((Thing(m[2], m[1]), POSITIONS.index(f"{m[3]} {m[4]}")) for m in found)
    return Frame(event, State(things, color)) if len({cell for _, cell in things}) == len(things) else None


def follows(before: State, event: str, after: State) -> bool:
    """Whether `after` is what the told event makes of `before`. An event outside the grammar makes nothing."""
    words = event.split()
    verb = next((i for i, word in enumerate(words) if word in {*_FINDS, *_GOES, *_EATS, *_MANY.values()}), None)
    if verb is None or verb == 0:
        return False
    who, rest = words[verb - 1], " ".join(words[verb + 1 :])
    then = _after(before, who, words[verb], rest)
    return then is not None and set(then.things) == set(after.things) and then.background == after.background


def _after(before: State, who: str, verb: str, rest: str) -> State | None:
    place = next((p for p in POSITIONS if rest.endswith(f"the {p}")), None)
    if verb in _EATS:
        return before.removed(rest.removeprefix("the "))
    if verb in _FINDS:
        found = re.fullmatch(rf"an? ({'|'.join(OBJECTS)}) at the {place}", rest)
        return (
            before.added(Thing(found[1], before.things[0][0].style), POSITIONS.index(place))
            if found and before.things
            else None
        )
    if place is not None:
        return before.moved(who, POSITIONS.index(place))
    color = _COLOR_OF.get(rest.removeprefix("to the "))
    return replace(before, background=color) if color else None


def opens(event: str, state: State) -> bool:
    """Whether the first frame's place is the one told."""
    return PLACES[state.background] == next((p for p in PLACES.values() if event.endswith(p)), None)
