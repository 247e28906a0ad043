"""The world's checker as a reward: whether an answer is right, from its text or straight from its codes.

The patch tokenizer's codes are answers to four questions a cell (patch_tokenizer.py), so an image is read without being
decoded. A cell whose codes contradict each other, its place or the background is unknown, and counts against the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from llada_uni.data.records import Conversation
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.training.reward.rewards import Answer
from llada_uni.world.checker import Reading
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, SIDE, STYLES
from llada_uni.world.evaluation.scoring import score_answer, score_drawing, score_edit
from llada_uni.world.scene import Scene, Thing
from llada_uni.world.training.patch_tokenizer import FIRST

_WHERE, _WHAT, _COLOR, _STYLE = FIRST.tolist()


def judge_sample(record: Conversation, answer: Answer) -> float:
    """1 for a right answer, by what the record's sample expects."""
    return _scores(record, answer)["right"]


def judge_parts(record: Conversation, answer: Answer) -> float:
    """From 0 to 1: how much of an answer is right. Of a text: whether all its words are; of an image: the mean of what is asked
    of it (objects, background, relation, number; of an edit what was asked and what was to be kept)."""
    scores = _scores(record, answer)
    parts = [value for name, value in scores.items() if name != "right"]
    return sum(parts) / len(parts)


def _scores(record: Conversation, answer: Answer) -> dict[str, float]:
    expect: Mapping[str, Any] = record.meta
    if "turns" in expect:
        expect = expect["turns"][len(record.messages) // 2 - 1]
    if "answer" in expect:
        return score_answer(dict(expect), answer.text)
    if answer.image is None:
        raise UserError(f"{record.where}: a text cannot be judged by what this sample of the world expects")
    reading = read_codes(answer.image)
    return score_edit(dict(expect), reading) if "scene" in expect else score_drawing(dict(expect), reading)


def read_codes(image: ImageCodes) -> Reading:
    """What an image of the patch tokenizer shows, from its codes. UserError for a grid that is not the world's."""
    side = 2 * SIDE
    if (image.height, image.width) != (side, side):
        raise UserError(f"the image has {image.height} x {image.width} codes; those of the world have {side} x {side}")
    grid = np.array(image.codes).reshape(SIDE, 2, SIDE, 2).transpose(0, 2, 1, 3).reshape(len(CELLS), 4)
    colors, styles, concepts = list(COLORS), list(STYLES), list(CONCEPTS)
    grounds = Counter(int(code) - _COLOR for code in grid[:, 2] if 0 <= code - _COLOR < len(colors))
    ground = grounds.most_common(1)[0][0] if grounds else 0
    cells: list[Thing | None] = []
    unknown = []
    for cell, (where, what, color, style) in enumerate(grid.tolist()):
        thing, manner = what - _WHAT, style - _STYLE
        fits = where - _WHERE == cell and color - _COLOR == ground
        known = fits and 0 <= thing <= len(concepts) and 0 <= manner <= len(styles) and (thing == 0) == (manner == 0)
        unknown.append(not known)
        cells.append(Thing(concepts[thing - 1], styles[manner - 1]) if known and thing else None)
    zeros = (0.0,) * len(CELLS)
    return Reading(Scene(tuple(cells), colors[ground]), tuple(float(not lost) for lost in unknown), tuple(unknown), zeros)
