"""The words of the small world that should be one token each."""

from __future__ import annotations

from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, ROWS, STYLES, THINGS
from llada_uni.world.questions import DECIDING
from llada_uni.world.wordings import NUMBERS


def world_words() -> list[str]:
    """Names of things, styles, colors, numbers and positions, and what answers are made of. As one token each, proposals for
    an answer differ by words alone, never by its length.

    A position of two words is one token too: a model of this size did not learn to join "top" to its "left" (docs/log.md).
    """
    return [*CONCEPTS, *(CONCEPTS[name].plural for name in THINGS), *STYLES, *COLORS, *NUMBERS, *POSITIONS, *ROWS, *DECIDING]
