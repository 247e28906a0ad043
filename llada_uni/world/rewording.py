"""The same request in other words: typing mistakes, for training a little and for testing.

A mistake never falls on a name (of a thing, color, style, place or number): a request must stay answerable.
"""

from __future__ import annotations

import random
import re

from llada_uni.world.concepts import COLORS, COLUMNS, CONCEPTS, ROWS, STYLES
from llada_uni.world.wordings import NUMBERS

_NAMES = {*CONCEPTS, *(c.plural for c in CONCEPTS.values()), *COLORS, *STYLES, *ROWS, *COLUMNS, *NUMBERS}
_SHORTEST = 4


def mistyped(rng: random.Random, text: str) -> str:
    """`text` with one letter doubled, left out, or swapped with the next in one word that is no name, if there is one."""
    words = [match for match in re.finditer(r"[a-z]+", text) if len(match[0]) >= _SHORTEST and match[0] not in _NAMES]
    if not words:
        return text
    word = rng.choice(words)
    at = word.start() + rng.randrange(1, len(word[0]) - 1)
    letter = text[at]
    wrong = rng.choice((letter * 2, "", text[at + 1] + letter))
    return text[:at] + wrong + text[at + (2 if len(wrong) == 2 and wrong[0] != letter else 1) :]
