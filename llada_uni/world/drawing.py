"""Text to image and refilling: prompts that fix some or all of a scene, and exactly what they fix.

Kinds of "t2i": the six classes of GenEval (single, two objects, counting, colors, position, attribute
binding), number (digits in a
row) and full (every thing with style and place). A kind -> a `Plan` (what stands where, and how
much of it will be said) -> words in train or held-out wordings.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from llada_uni.world.arrangement import PIPS, RELATED, cells_of, in_row
from llada_uni.world.captions import caption, is_crowded, placed_name, quantity
from llada_uni.world.concepts import CELLS, POSITIONS, ROWS, SIDE, STYLES, THINGS
from llada_uni.world.samples import Sample, Turn, open_color, open_style, pinned, until, wanted
from llada_uni.world.sampling import any_number, sample_scene
from llada_uni.world.scene import MOST_DIFFERENT, Scene, Thing, placed
from llada_uni.world.split import in_split
from llada_uni.world.wordings import Speaker, article, joined

T2I_KINDS = {
    "single": 0.09,
    "two objects": 0.11,
    "counting": 0.17,
    "colors": 0.09,
    "position": 0.20,
    "attribute binding": 0.11,
    "number": 0.10,
    "full": 0.13,
}
GENEVAL = ("single", "two objects", "counting", "colors", "position", "attribute binding")
INPAINT_KINDS = {"refill": 1.0}


@dataclass(frozen=True)
class Group:
    """Equal things: a concept in a style, in these cells."""

    concept: str
    style: str
    cells: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What stands where, and what of it is said.

    style: "none", "each" (before every name) or "once" ("... in flat style"). relation: said of the two groups in place
    of places. number, row: digits in a row (their style is that of the picture); row_said: "top" for the row's own words,
    "above" or "below" for its relation to the groups.
    """

    groups: tuple[Group, ...]
    background: str
    style: str = "none"
    places_said: bool = False
    ground_said: bool = False
    relation: str | None = None
    number: str | None = None
    row: int = 1
    row_said: str | None = None
    digit_style: str = field(default=STYLES[0])

    def scene(self) -> Scene:
        """The picture."""
        cells = {cell: Thing(g.concept, g.style) for g in self.groups for cell in g.cells}
        digits = {SIDE * self.row + i: Thing(d, self.digit_style) for i, d in enumerate(self.number or "")}
        return placed(cells | digits, self.background)

    def expect(self) -> dict:
        """What the words fix."""
        styled = self.style != "none"
        objects = [
            wanted(g.concept, g.style if styled else None, cell if self.places_said else None)
            for g in self.groups
            for cell in g.cells
        ]
        row = self.row if self.row_said in ROWS else None
        return {
            "objects": objects,
            "background": self.background if self.ground_said else None,
            "relations": [(0, self.relation, 1)] if self.relation else [],
            "number": self.number,
            "row": row,
        }

    def prompt(self, say: Speaker) -> str:
        """The words of a user who wants this picture, clauses in one of the orders of the set of wordings."""
        clauses = {
            "d": say.pick("draw").format(d=self._things(say)),
            "style": say.pick("in style").format(s=self._one_style()) if self.style == "once" else "",
            "ground": on(say, self.background) if self.ground_said else "",
        }
        return " ".join(say.pick("clauses").format(**clauses).split())

    def _one_style(self) -> str:
        return self.digit_style if self.number else self.groups[0].style

    def _things(self, say: Speaker) -> str:
        each = self.style == "each"
        if self.places_said and (len(self.groups) > 2 or (say.wordings == "train" and say.chance(0.2))):
            return ", ".join(placed_name(g.cells[0], Thing(g.concept, g.style), each) for g in self.groups)
        if self.places_said:
            at = say.pick("at")
            named = [(article(f"{g.style} {g.concept}" if each else g.concept), POSITIONS[g.cells[0]]) for g in self.groups]
            return joined([at.format(a=a, p=p) for a, p in named])
        said = [quantity(g.concept, len(g.cells), g.style if each else None) for g in self.groups]
        if self.relation:
            return f" {self.relation} ".join(said)
        if self.number is None:
            return joined(said)
        number = say.pick("number").format(n=self.number)
        if self.row_said in ROWS:
            return f"{number} {say.pick('in row').format(row=self.row_said)}"
        return f"{number} {self.row_said} {joined(said)}" if self.row_said else number


def on(say: Speaker, color: str) -> str:
    """Words for a background."""
    return say.pick("on").format(c=color, ac=article(color))


def _names(rng: random.Random, count: int) -> list[str]:
    return rng.sample(THINGS, count)


def _open_groups(rng: random.Random, counts: list[int], styles: list[str]) -> tuple[Group, ...]:
    """Groups of different things in the places that are taken when none are said."""
    names, cells = _names(rng, len(counts)), cells_of(counts)
    return tuple(Group(n, s, c) for n, s, c in zip(names, styles, cells, strict=True))


def _placed_groups(rng: random.Random, styles: list[str], twins: float = 0.0) -> tuple[Group, ...]:
    """One thing a group, in cells drawn at random and said in any order; `twins`: how often two of them are of one concept."""
    names, cells = _names(rng, len(styles)), rng.sample(CELLS, len(styles))
    if len(names) > 1 and rng.random() < twins:
        names[1] = names[0]
    return tuple(Group(n, s, (c,)) for n, s, c in zip(names, styles, cells, strict=True))


def counts_of(rng: random.Random) -> list[int]:
    """Numbers of things for counting: of one kind up to nine, of two kinds up to three each."""
    if rng.random() < 0.7:
        return [rng.randint(2, max(PIPS))]
    return [rng.randint(1, SIDE), rng.randint(1, SIDE)] if rng.random() < 0.7 else [rng.randint(1, SIDE) for _ in range(3)]


def _plan(rng: random.Random, kind: str) -> Plan:
    """A plan of the kind, whatever its split."""
    if kind == "number":
        return _number_plan(rng)
    said = rng.random() < 0.75
    style, ground = open_style(rng, said), rng.random() < 0.5 or kind in ("colors", "full")
    color = open_color(rng, ground)
    manner = rng.choice(("each", "once")) if said else "none"
    if kind == "attribute binding":
        styles = rng.sample(STYLES, 2)
        if rng.random() < 0.5:
            return Plan(_placed_groups(rng, styles), color, "each", True, ground)
        return Plan(_open_groups(rng, [1, 1], styles), color, "each", False, ground)
    if kind == "counting":
        counts = counts_of(rng)
        return Plan(_open_groups(rng, counts, [style] * len(counts)), color, manner, False, ground)
    if kind in ("position", "full"):
        return _position_plan(rng, kind, style, manner, color, ground)
    counts = [1] if kind == "single" else [1, 1] if kind == "two objects" else [1] * rng.choice((1, 1, 2))
    return Plan(_open_groups(rng, counts, [style] * len(counts)), color, manner, False, ground)


def _position_plan(rng: random.Random, kind: str, style: str, manner: str, color: str, ground: bool) -> Plan:
    """Things in places that are said, or two in a relation."""
    if kind == "position" and rng.random() < 0.35:
        relation = rng.choice(tuple(RELATED))
        cells = [(cell,) for cell in RELATED[relation]]
        groups = tuple(Group(n, style, c) for n, c in zip(_names(rng, 2), cells, strict=True))
        return Plan(groups, color, manner, False, ground, relation)
    count = rng.choice((1, 2, 2, 3)) if kind == "position" else rng.randint(2, MOST_DIFFERENT)
    mixed = kind == "full" and rng.random() < 0.6
    styles = [rng.choice(STYLES) if mixed else style for _ in range(count)]
    groups = _placed_groups(rng, styles, twins=0.25 if kind == "full" else 0.0)
    return Plan(groups, color, "each" if kind == "full" else manner, True, ground)


def _number_plan(rng: random.Random) -> Plan:
    """A number alone, in a named row, or above or below one or two things, which stand in the row farthest from it."""
    said, ground = rng.random() < 0.5, rng.random() < 0.5
    style, color, number = open_style(rng, said), open_color(rng, ground), any_number(rng)
    where = rng.choice(("", "", "row", "above", "below"))
    row = rng.randrange(SIDE) if where == "row" else {"": 1, "above": 0, "below": 2}[where]
    groups: tuple[Group, ...] = ()
    if where in ("above", "below"):
        groups = (Group(rng.choice(THINGS), style, in_row(SIDE - 1 - row, rng.randint(1, SIDE))),)
    row_said = ROWS[row] if where == "row" else where or None
    manner = "once" if said else "none"
    return Plan(groups, color, manner, False, ground, None, number, row, row_said, style)


def plan_of(rng: random.Random, kind: str, split: str) -> Plan:
    """A plan whose picture belongs to the split; in the held-out one the words themselves hold the combination."""

    def make() -> Plan | None:
        plan = _plan(rng, kind)
        if not in_split(plan.scene(), split):
            return None
        return plan if split != "heldout" or pinned(plan.expect()["objects"], plan.number) else None

    return until(make)


def sample_t2i(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A prompt and a scene that fulfils it."""
    plan, say = plan_of(rng, kind, split), Speaker(rng, wordings)
    return Sample("t2i", kind, [Turn("user", [plan.prompt(say)])], [plan.scene()], plan.expect())


def sample_inpaint(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A picture, one or two cells to be refilled so that the whole becomes what its caption says."""

    def make() -> tuple[Scene, Scene, set[int]] | None:
        scene = sample_scene(rng, split)
        if is_crowded(scene):
            return None  # its caption does not say what stands where
        holes = {rng.choice([cell for cell, _ in scene.things()])}
        if rng.random() < 0.4:
            holes.add(rng.choice(CELLS))
        source = scene
        for cell in holes:  # what stood there before: another thing, or nothing
            other = Thing(rng.choice(THINGS), rng.choice(STYLES)) if rng.random() < 0.6 else None
            source = source.replace_cell(cell, other)
        if source == scene or (split != "heldout" and not in_split(source, split)):
            return None
        return scene, source, holes

    scene, source, holes = until(make)
    prompt = Speaker(rng, wordings).pick("draw").format(d=caption(scene))
    expect = {"source": source, "scene": scene, "cells": sorted(holes)}
    return Sample("inpaint", kind, [Turn("user", [prompt])], [scene], expect)
