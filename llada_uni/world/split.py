"""What is held out, in code: combinations that no training sample of the backbone may hold.

Four kinds, drawn once from a fixed seed:
- pairs of things that never stand in one scene (3 % of all pairs);
- concept-style pairs (one style for 24 things);
- concept-position pairs (one cell for 40 things);
- numbers (a tenth of those from 10 to 999).
The image tokenizer and the decoder do see every sprite (nobody can draw an unseen drawing);
they never see a word, and the backbone never trains on a held-out combination.
"""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import combinations

from llada_uni.errors import UserError
from llada_uni.world.concepts import CELLS, STYLES, THINGS
from llada_uni.world.scene import Scene

SPLITS = ("train", "seen", "heldout", "any")
_SEED = 20260420
_PAIRS = 0.03
_STYLES, _POSITIONS, _NUMBERS = 24, 40, 99


@lru_cache(maxsize=1)
def held_out_pairs() -> frozenset[frozenset[str]]:
    """Pairs of concept names that never share a training scene."""
    pairs = list(combinations(THINGS, 2))
    chosen = random.Random(_SEED).sample(pairs, round(len(pairs) * _PAIRS))
    return frozenset(frozenset(p) for p in chosen)


@lru_cache(maxsize=1)
def held_out_styles() -> frozenset[tuple[str, str]]:
    """(concept, style) never trained together."""
    rng = random.Random(_SEED + 1)
    return frozenset((name, rng.choice(STYLES)) for name in rng.sample(THINGS, _STYLES))


@lru_cache(maxsize=1)
def held_out_positions() -> frozenset[tuple[str, int]]:
    """(concept, cell number) never trained together."""
    rng = random.Random(_SEED + 2)
    return frozenset((name, rng.choice(CELLS)) for name in rng.sample(THINGS, _POSITIONS))


@lru_cache(maxsize=1)
def held_out_numbers() -> frozenset[str]:
    """Numbers of two or three digits that no training scene shows."""
    return frozenset(str(n) for n in random.Random(_SEED + 3).sample(range(10, 1000), _NUMBERS))


def is_held_out(scene: Scene) -> bool:
    """True when the scene holds at least one held-out combination."""
    things = scene.things()
    styles, positions, pairs = held_out_styles(), held_out_positions(), held_out_pairs()
    if any((t.concept, t.style) in styles or (t.concept, i) in positions for i, t in things):
        return True
    if scene.number() in held_out_numbers():
        return True
    names = sorted({t.concept for _, t in things})
    return any(frozenset(p) in pairs for p in combinations(names, 2))


def in_split(scene: Scene, split: str) -> bool:
    """Whether `scene` belongs to the split: "heldout" has a held-out combination, "train" and "seen" none, "any" may."""
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    return split == "any" or is_held_out(scene) == (split == "heldout")
