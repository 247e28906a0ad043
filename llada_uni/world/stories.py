"""Illustrated stories: sentences and scenes in turn; characters persist and something happens each time.

The sentences follow a small grammar, so that `read_sentence` can say what a frame must show: every thing in
it is named; a place names the background colour; a position is named when something comes or moves. What
nobody mentions stays where it was. The kind is the number of frames.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from llada_uni.world.concepts import CONCEPTS, POSITIONS, STYLES
from llada_uni.world.samples import CELLS, COLOR_NAMES, NAMES, Sample, Turn, fits, pinned, until, wanted
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.wordings import article, joined, pick

STORY_KINDS = {"two": 0.3, "three": 0.4, "four": 0.3}
_FRAMES = {"two": 2, "three": 3, "four": 4}
CHARACTERS = (*(n for n, c in CONCEPTS.items() if c.category == "animal"), "robot", "ghost")
OBJECTS = tuple(n for n in NAMES if n not in CHARACTERS)
PLACES = {
    "green": "in the park",
    "blue": "by the sea",
    "yellow": "in the desert",
    "white": "in the snow",
    "pink": "at the party",
    "gray": "in the city",
}
_PLACE_WORDS = {phrase.split()[-1]: color for color, phrase in PLACES.items()}
_START = (("is", "are"), ("plays", "play"), ("walks", "walk"), ("waits", "wait"))
_FIND = (("finds", "find"), ("sees", "see"), ("gets", "get"))
_GO = (("goes", "go"), ("walks", "walk"), ("runs", "run"))
_EATS = {"eats", "eat"}


def _the(names: list[str]) -> str:
    return joined([f"the {n}" for n in names])


@dataclass
class _Story:
    """The state between two frames: who is here, what was found, and the scene so far."""

    people: list[str]
    objects: list[str]
    scene: Scene

    def cell(self, name: str) -> int:
        return next(i for i, t in self.scene.things() if t.concept == name)

    def empty(self) -> list[int]:
        return [i for i in CELLS if self.scene.cells[i] is None]


def _verb(rng: random.Random, forms: tuple[tuple[str, str], ...], many: bool) -> str:
    return rng.choice(forms)[many]


def _find(rng: random.Random, s: _Story) -> tuple[str, _Story] | None:
    if not s.empty() or len(s.objects) == 2:
        return None
    style = next(t.style for _, t in s.scene.things())
    name, cell = rng.choice([n for n in OBJECTS if n not in s.objects]), rng.choice(s.empty())
    with_objects = f" with {_the(s.objects)}" if s.objects else ""
    where = f" at the {POSITIONS[cell]}" if rng.random() < 0.6 else ""
    many = len(s.people) > 1
    text = f"{_the(s.people)}{with_objects} {_verb(rng, _FIND, many)} {article(name)}{where}"
    return text, _Story(s.people, [*s.objects, name], s.scene.replace_cell(cell, Thing(name, style)))


def _move(rng: random.Random, s: _Story) -> tuple[str, _Story] | None:
    if not s.empty():
        return None
    who, goal = rng.choice(s.people), rng.choice(s.empty())
    others = [p for p in s.people if p != who]
    went = f"{_verb(rng, _GO, False)} to the {POSITIONS[goal]}"
    if others:
        carried = f" with {_the(s.objects)}" if s.objects else ""
        text = f"the {who} {went} and {_the(others)} waits{carried}"
    else:
        text = f"the {who} leaves {_the(s.objects)} and {went}" if s.objects else f"the {who} {went}"
    old = s.cell(who)
    scene = s.scene.replace_cell(goal, s.scene.cells[old]).replace_cell(old, None)
    return text, _Story(s.people, s.objects, scene)


def _go(rng: random.Random, s: _Story) -> tuple[str, _Story] | None:
    color = rng.choice([c for c in COLOR_NAMES if (c,) != s.scene.background])
    carried = f" with {_the(s.objects)}" if s.objects else ""
    verb = _verb(rng, _GO, len(s.people) > 1)
    text = f"{_the(s.people)} {verb} to the {PLACES[color].split()[-1]}{carried}"
    return text, _Story(s.people, s.objects, s.scene.with_background(color))


def _eat(rng: random.Random, s: _Story) -> tuple[str, _Story] | None:
    food = [n for n in s.objects if CONCEPTS[n].category == "food"]
    if not food:
        return None
    name = rng.choice(food)
    rest = [n for n in s.objects if n != name]
    verb, keep = ("eat", "keep") if len(s.people) > 1 else ("eats", "keeps")
    text = f"{_the(s.people)} {verb} the {name}" + (f" and {keep} {_the(rest)}" if rest else "")
    return text, _Story(s.people, rest, s.scene.replace_cell(s.cell(name), None))


_EVENTS = ((_find, 4), (_move, 3), (_go, 3), (_eat, 3))


def _next(rng: random.Random, s: _Story, split: str) -> tuple[str, _Story]:
    """The next frame; in the train split only frames without held-out combinations come about."""
    while True:
        event = rng.choices([e for e, _ in _EVENTS], [w for _, w in _EVENTS])[0]
        made = event(rng, s)
        if made is not None and (split in ("heldout", "any") or fits(made[1].scene, split)):
            return made


def sample_story(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A request for a story about one or two characters, and the story.

    In the held-out split the request itself holds a held-out combination (two characters, or one in a style).
    """

    def make() -> Sample | None:
        people = rng.sample(CHARACTERS, 1 if rng.random() < 0.35 else 2)
        style = rng.choice(STYLES)
        styled = rng.random() < 0.7
        asked = [wanted(p, style if styled else None) for p in people]
        if split == "heldout" and not pinned(asked):
            return None
        cells: list[Thing | None] = [None] * len(CELLS)
        for place, name in zip(rng.sample(CELLS, len(people)), people, strict=True):
            cells[place] = Thing(name, style)
        scene = Scene(tuple(cells), (rng.choice(COLOR_NAMES),))
        if not fits(scene, split):
            return None
        color = scene.background[0]
        placed = rng.random() < 0.3
        said = " and ".join(article(p) for p in people)
        ask = said + (f" {PLACES[color]}" if placed else "") + (f" in {style} style" if styled else "")
        request = pick(rng, "story", wordings).format(d=ask)
        first = f"{said} {_verb(rng, _START, len(people) > 1)} {PLACES[color]}"
        state = _Story(people, [], scene)
        answer: list[str | Scene] = [first, scene]
        for _ in range(_FRAMES[kind] - 1):
            text, state = _next(rng, state, split)
            answer += [text, state.scene]
        expect = {
            "characters": [{"concept": o["concept"], "style": o["style"]} for o in asked],
            "background": color if placed else None,
            "scenes": answer[1::2],
        }
        return Sample("story", kind, [Turn("user", [request])], answer, expect)

    return until(make)


def read_sentence(sentence: str) -> dict:
    """What the frame under `sentence` must show.

    Returns {"things": names in order, "place": background colour or None, "at": (name, cell) or None}; "at"
    is the thing that came or moved to a named position. A sentence outside the grammar gives what it names.
    """
    words = re.findall(r"[a-z0-9]+", sentence.lower())
    things: list[str] = []
    place, at, eaten = None, None, None
    for i, word in enumerate(words):
        if word in CONCEPTS and word != eaten:
            after = words[i - 2] if i >= 2 else ""
            if after in _EATS:
                eaten = word
            elif word not in things:
                things.append(word)
        elif word in _PLACE_WORDS:
            place = _PLACE_WORDS[word]
        position = " ".join(words[i : i + 2])
        if position in POSITIONS and things:
            came = words[max(i - 2, 0)] == "at"  # "find a key at the top left"; otherwise somebody goes there
            at = (things[-1] if came else things[0], POSITIONS.index(position))
    return {"things": things, "place": place, "at": at}
