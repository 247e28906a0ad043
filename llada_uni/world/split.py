"""What is held out, in code: combinations that no training sample of the backbone may hold.

Three kinds, drawn once from a fixed seed:
- pairs of concepts that never stand in one scene (10 % of all pairs);
- concept-style pairs (one style for 12 concepts);
- concept-position pairs (one cell for 16 concepts).
The image tokenizer and the decoder do see every sprite (nobody can draw an unseen drawing);
they never see a word, and the backbone never trains on a held-out combination.
"""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

from llada_uni.world.concepts import CONCEPTS, POSITIONS, STYLES

if TYPE_CHECKING:
    from llada_uni.world.scene import Scene

_SEED = 20260420


@lru_cache(maxsize=1)
def held_out_pairs() -> frozenset[frozenset[str]]:
    """Pairs of concept names that never share a training scene."""
    pairs = list(combinations(CONCEPTS, 2))
    chosen = random.Random(_SEED).sample(pairs, len(pairs) // 10)
    return frozenset(frozenset(p) for p in chosen)


@lru_cache(maxsize=1)
def held_out_styles() -> frozenset[tuple[str, str]]:
    """(concept, style) never trained together."""
    rng = random.Random(_SEED + 1)
    return frozenset((name, rng.choice(STYLES)) for name in rng.sample(list(CONCEPTS), 12))


@lru_cache(maxsize=1)
def held_out_positions() -> frozenset[tuple[str, int]]:
    """(concept, cell number) never trained together."""
    rng = random.Random(_SEED + 2)
    return frozenset((name, rng.randrange(len(POSITIONS))) for name in rng.sample(list(CONCEPTS), 16))


def is_held_out(scene: Scene) -> bool:
    """True when the scene holds at least one held-out combination."""
    things = scene.things()
    styles, positions, pairs = held_out_styles(), held_out_positions(), held_out_pairs()
    if any((t.concept, t.style) in styles or (t.concept, i) in positions for i, t in things):
        return True
    names = sorted({t.concept for _, t in things})
    return any(frozenset(p) in pairs for p in combinations(names, 2))
