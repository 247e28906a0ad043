"""Right or wrong, from what was asked and what the checker reads. Pure functions; nothing here calls a model.

Every function returns a dict of scores from 0 to 1. A cell the checker cannot read is a thing nobody asked
for: it counts against the picture, never for it.
"""

from __future__ import annotations

import re
from itertools import pairwise, permutations

from llada_uni.world.checker import Reading
from llada_uni.world.samples import CELLS
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.stories import read_sentence


def _is(asked: dict, cell: int, thing: Thing) -> bool:
    return (
        asked["concept"] == thing.concept
        and asked["style"] in (None, thing.style)
        and asked["position"] in (None, cell)
    )


def score_objects(expect: dict, reading: Reading) -> dict[str, float]:
    """Text to image and thinking.

    objects: asked objects that stand there (concept, and style and position where asked), over the larger of
    the number asked and the number found, so that extra objects cost. exact: all of them, nothing else, and
    the background if asked. background: only where asked.
    """
    asked, found = expect["objects"], reading.scene.things()
    places = found + [(-1, None)] * len(asked)  # an object may also be missing
    matched = max(
        sum(
            thing is not None and _is(want, cell, thing)
            for want, (cell, thing) in zip(asked, chosen, strict=True)
        )
        for chosen in permutations(places, len(asked))
    )
    most = max(len(asked), len(found) + sum(reading.unknown))
    scores = {"objects": matched / most}
    right = matched == most
    if expect["background"] is not None:
        scores["background"] = float(reading.scene.background == (expect["background"],))
        right = right and scores["background"] == 1.0
    return scores | {"exact": float(right)}


def _same(reading: Reading, wanted: Scene, cells: list[int]) -> bool:
    return all(not reading.unknown[i] and reading.scene.cells[i] == wanted.cells[i] for i in cells)


def score_edit(expect: dict, reading: Reading) -> dict[str, float]:
    """asked: the change is there. kept: every other cell, and the background unless it was to change, is as
    it was. exact: both."""
    wanted, source = expect["scene"], expect["source"]
    ground = reading.scene.background == wanted.background
    recolor = wanted.background != source.background
    asked = _same(reading, wanted, expect["cells"]) and (ground or not recolor)
    kept = _same(reading, wanted, [i for i in CELLS if i not in expect["cells"]]) and (ground or recolor)
    return {"asked": float(asked), "kept": float(kept), "exact": float(asked and kept)}


def score_inpaint(expect: dict, reading: Reading) -> dict[str, float]:
    """refilled: the open cells hold what the prompt says. kept: the other cells and the background are as
    they were."""
    wanted = expect["scene"]
    refilled = _same(reading, wanted, expect["cells"])
    kept = _same(reading, wanted, [i for i in CELLS if i not in expect["cells"]])
    kept = kept and reading.scene.background == wanted.background
    return {"refilled": float(refilled), "kept": float(kept), "exact": float(refilled and kept)}


def normal(text: str) -> str:
    """Lower case, single spaces, no space before a comma, no full stop at the end."""
    text = re.sub(r"\s+", " ", text.lower()).strip()
    return re.sub(r"\s+,", ",", text).rstrip(". ")


def score_answer(expect: dict, answer: str) -> dict[str, float]:
    """exact: the canonical answer, up to case, spaces and a full stop."""
    return {"exact": float(normal(answer) == normal(expect["answer"]))}


def _frame_agrees(text: str, reading: Reading) -> bool:
    """Whether a picture shows what its sentence names: these things and no others, its place, its
    position."""
    told, scene = read_sentence(text), reading.scene
    if any(reading.unknown) or sorted(told["things"]) != sorted(t.concept for _, t in scene.things()):
        return False
    if told["place"] is not None and scene.background != (told["place"],):
        return False
    if told["at"] is None:
        return True
    name, cell = told["at"]
    thing = scene.cells[cell]
    return thing is not None and thing.concept == name


def score_story(expect: dict, frames: list[tuple[str, Reading | None]]) -> dict[str, float]:
    """frames: (sentence, reading), reading None where the picture is missing.

    characters: 1 if every asked character (in its style, if asked) stands in every one of at least two
    pictures. agreement: share of frames whose picture shows just what the sentence names. styles: 1 if no
    character changes its style. events: share of steps in which the scene changes. place: the place asked
    for is that of frame one.
    """
    readings = [r for _, r in frames if r is not None]
    steps = list(pairwise(readings))
    scores = {"characters": 0.0, "styles": 0.0}
    if len(readings) >= 2:
        scores["characters"] = float(
            all(
                any(
                    t.concept == who["concept"] and who["style"] in (None, t.style)
                    for _, t in r.scene.things()
                )
                for who in expect["characters"]
                for r in readings
            )
        )
        names = {who["concept"] for who in expect["characters"]}
        drawn = {(t.concept, t.style) for r in readings for _, t in r.scene.things() if t.concept in names}
        scores["styles"] = float({name for name, _ in drawn} == names and len(drawn) == len(names))
    agrees = [r is not None and _frame_agrees(text, r) for text, r in frames]
    scores["agreement"] = sum(agrees) / max(len(agrees), 1)
    scores["events"] = sum(a.scene != b.scene for a, b in steps) / max(len(steps), 1)
    if expect["background"] is not None:
        first = readings[0].scene.background if readings else None
        scores["place"] = float(first == (expect["background"],))
    return scores


def score_decoded(scene: Scene, reading: Reading) -> dict[str, float]:
    """Reading back a decoded picture. objects: share of the scene's things read in their cells; exact:
    everything."""
    things = scene.things()
    right = sum(not reading.unknown[i] and reading.scene.cells[i] == t for i, t in things)
    share = right / len(things) if things else 1.0
    return {"objects": share, "exact": float(reading.scene == scene and not any(reading.unknown))}
