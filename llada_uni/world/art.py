"""The sprites: reads the committed art sheets. See art/ATTRIBUTION.md for authors and licenses."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.world.concepts import CONCEPTS, STYLES

ART_DIR = Path(__file__).parent / "art"
SPRITE = 64
SPRITES_A_ROW = 16
_INDEX = {name: i for i, name in enumerate(CONCEPTS)}


@cache
def _sheet(style: str) -> Image.Image:
    return Image.open(ART_DIR / f"{style}.png").convert("RGBA")


@cache
def sprite(concept: str, style: str) -> Image.Image:
    """The drawing of `concept` in `style`: RGBA, 64 x 64, transparent around it. UserError for unknown names."""
    if concept not in _INDEX:
        raise UserError(f"unknown concept {concept!r}; known: {', '.join(CONCEPTS)}")
    if style not in STYLES:
        raise UserError(f"unknown style {style!r}; known: {', '.join(STYLES)}")
    i = _INDEX[concept]
    x, y = (i % SPRITES_A_ROW) * SPRITE, (i // SPRITES_A_ROW) * SPRITE
    return _sheet(style).crop((x, y, x + SPRITE, y + SPRITE))
