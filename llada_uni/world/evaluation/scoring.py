"""Right or wrong, from what was asked and what the checker reads. Pure functions; nothing here calls a model.

Every function returns a dict of scores from 0 to 1. A cell the checker cannot read is a thing nobody asked
for: it counts against the picture, never for it.
"""

from __future__ import annotations

from llada_uni.world.arrangement import RELATIONS
from llada_uni.world.checker import Reading
from llada_uni.world.concepts import CELLS, DIGITS, SIDE
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.stories import follows, opens, read_frame
from llada_uni.world.wordings import normal

Found = tuple[int, Thing]


def _is(asked: dict, found: Found) -> bool:
    cell, thing = found
    return asked["concept"] == thing.concept and asked["style"] in (None, thing.style) and asked["position"] in (None, cell)


def matched(asked: list[dict], found: list[Found]) -> int:
    """How many asked objects can be given a found one each, in the best way (augmenting paths)."""
    owner: dict[int, int] = {}

    def take(want: int, tried: set[int]) -> bool:
        for i, one in enumerate(found):
            if i not in tried and _is(asked[want], one):
                tried.add(i)
                if i not in owner or take(owner[i], tried):
                    owner[i] = want
                    return True
        return False

    return sum(take(want, set()) for want in range(len(asked)))


def score_drawing(expect: dict, reading: Reading) -> dict[str, float]:
    """Text to image and thinking.

    right: every asked object stands there (concept, and style and place where asked), nothing else does, and relations,
    number and background are as asked. objects: asked objects that stand there, over the larger of the number asked and
    the number found. background, relation, number: only where asked.
    """
    scene = reading.scene
    numbered = expect["number"] is not None
    found = [(i, t) for i, t in scene.things() if not (numbered and t.concept in DIGITS)]
    asked = expect["objects"]
    most = max(len(asked), len(found) + sum(reading.unknown))
    scores = {"objects": matched(asked, found) / most if most else 1.0}
    if expect["background"] is not None:
        scores["background"] = float(scene.background == expect["background"])
    if expect["relations"]:
        scores["relation"] = float(all(_holds(found, asked, relation) for relation in expect["relations"]))
    if numbered:
        first = next((i for i, t in scene.things() if t.concept in DIGITS), None)
        in_row = expect["row"] is None or (first is not None and first // SIDE == expect["row"])
        scores["number"] = float(scene.number() == expect["number"] and in_row)
    return {"right": float(all(value == 1.0 for value in scores.values())), **scores}


def _holds(found: list[Found], asked: list[dict], relation: tuple[int, str, int]) -> bool:
    one, name, other = relation
    cells = [next((i for i, t in found if t.concept == asked[k]["concept"]), None) for k in (one, other)]
    return None not in cells and RELATIONS[name](*cells)


def _same(reading: Reading, wanted: Scene, cells: list[int]) -> bool:
    return all(not reading.unknown[i] and reading.scene.cells[i] == wanted.cells[i] for i in cells)


def is_scene(reading: Reading, wanted: Scene) -> bool:
    """Whether the picture shows just this scene."""
    return _same(reading, wanted, list(CELLS)) and reading.scene.background == wanted.background


def score_edit(expect: dict, reading: Reading) -> dict[str, float]:
    """asked: the change is there. kept: every other cell, and the background unless it was to change, is as
    it was. right: both. Also for refilling, where the cells are the open ones."""
    wanted, source = expect["scene"], expect["source"]
    ground = reading.scene.background == wanted.background
    recolor = wanted.background != source.background
    asked = _same(reading, wanted, expect["cells"]) and (ground or not recolor)
    kept = _same(reading, wanted, [i for i in CELLS if i not in expect["cells"]]) and (ground or recolor)
    return {"right": float(asked and kept), "asked": float(asked), "kept": float(kept)}


def score_answer(expect: dict, answer: str) -> dict[str, float]:
    """right: the words that decide are the canonical ones, up to case, spaces and a full stop. whole: all words are."""
    said, wanted, key = normal(answer), normal(expect["answer"]), expect["key"]
    whole = said == wanted
    right = said.rpartition(": ")[2] == key if key is not None else whole
    return {"right": float(right), "whole": float(whole)}


def object_f1(answer: str, wanted: str) -> float:
    """F1 of the things a caption names ("cartoon cat top left"), whatever it says about the background."""
    said, right = (normal(text).rpartition(" on ")[0].split(", ") for text in (answer, wanted))
    both = sum(min(said.count(part), right.count(part)) for part in set(said))
    return 2 * both / (len(said) + len(right))


def score_story(expect: dict, frames: list[tuple[str, Reading | None]]) -> dict[str, float]:
    """frames: (text, reading), reading None where the picture is missing.

    right: share of frames, of the larger of the number asked and told, in which all holds: every character stands there, in
    the style asked for or that of the first frame (characters); what is told happens to the frame before, or the story
    starts where it says (told); the picture is what its text says (agreement). whole: all frames are right.
    """
    read = [(read_frame(text), reading) for text, reading in frames]
    style = expect["style"]
    if style is None and read and read[0][1] is not None:
        style = next((t.style for _, t in read[0][1].scene.things()), None)
    scores = {"characters": 0, "told": 0, "agreement": 0, "right": 0}
    for i, (frame, reading) in enumerate(read):
        there = reading is not None and _cast_is_there(expect["characters"], style, reading)
        before = read[i - 1][0] if i else None
        told = frame is not None and (
            follows(before.state, frame.event, frame.state) if before else i == 0 and _starts(frame, expect)
        )
        agrees = frame is not None and reading is not None and is_scene(reading, frame.state.scene())
        for name, value in (("characters", there), ("told", told), ("agreement", agrees), ("right", there and told and agrees)):
            scores[name] += value
    most = max(len(read), expect["frames"])
    shares = {name: value / most for name, value in scores.items()}
    return shares | {"whole": float(shares["right"] == 1.0)}


def _starts(frame, expect: dict) -> bool:
    """Whether the first frame stands where it says, and where the request wants it."""
    return opens(frame.event, frame.state) and expect["background"] in (None, frame.state.background)


def _cast_is_there(characters: list[str], style: str | None, reading: Reading) -> bool:
    names = reading.scene.names()
    alone = all(names.count(name) == 1 for name in characters)
    return alone and all(t.style == style for _, t in reading.scene.things() if t.concept in characters)


def score_reasoning(expect: dict, frames: list[tuple[str, Reading | None]]) -> dict[str, float]:
    """right: the last picture is the wanted one and the last words are the result. steps: share of the wanted pictures that
    stand at their step (of the larger of the numbers wanted and shown). words: the last words alone."""
    readings = [reading for _, reading in frames if reading is not None]
    scenes = expect["scenes"]
    words = bool(frames) and frames[-1][1] is None and normal(frames[-1][0]) == normal(expect["final"])
    solved = bool(readings) and is_scene(readings[-1], scenes[-1])
    steps = sum(is_scene(reading, scene) for reading, scene in zip(readings, scenes, strict=False))
    share = steps / max(len(readings), len(scenes))
    return {"right": float(words and solved), "steps": share, "words": float(words)}


def score_decoded(scene: Scene, reading: Reading) -> dict[str, float]:
    """Reading back a decoded picture. right: share of the scene's things read in their cells; whole:
    everything."""
    things = scene.things()
    right = sum(not reading.unknown[i] and reading.scene.cells[i] == t for i, t in things)
    share = right / len(things) if things else 1.0
    return {"right": share, "whole": float(is_scene(reading, scene))}
