"""Builds the art sheets of this folder from the published emoji packages.

    python -m llada_uni.world.build_art NODE_MODULES

NODE_MODULES is the folder in which `npm install emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
@lobehub/fluent-emoji-3d@1.1.0` has put its packages. The sheets are committed, so only somebody who adds
concepts needs this. A sheet is one RGBA picture a style: 16 sprites of 64 x 64 a row, in the order of CONCEPTS.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.world.art import ART_DIR, SPRITE, SPRITES_A_ROW
from llada_uni.world.concepts import CONCEPTS, STYLES

_KEY_RIM = 0.2
_SOURCES = {
    "cartoon": "emoji-datasource-google/img/google/64/{}.png",
    "flat": "emoji-datasource-twitter/img/twitter/64/{}.png",
    "3d": "@lobehub/fluent-emoji-3d/assets/{}.webp",
}


def build(packages: Path, out: Path = ART_DIR) -> None:
    """Writes `STYLE.png` for every style into `out`. Raises UserError naming the first picture that is missing."""
    out.mkdir(parents=True, exist_ok=True)
    rows = -(-len(CONCEPTS) // SPRITES_A_ROW)
    for style in STYLES:
        sheet = Image.new("RGBA", (SPRITES_A_ROW * SPRITE, rows * SPRITE))
        for index, concept in enumerate(CONCEPTS.values()):
            path = packages / _SOURCES[style].format(concept.codepoint)
            if not path.is_file():
                raise UserError(f"no art for {concept.name!r} in style {style!r}: {path} does not exist")
            # Palette and gray pictures occur in the packages, hence the conversion first.
            sprite = Image.open(path).convert("RGBA")
            box = sprite.getchannel("A").getbbox()
            if box is None:
                raise UserError(f"the art for {concept.name!r} in style {style!r} is empty: {path}")
            if concept.category == "digit":  # of the key only the middle, so that digits differ as much as things do
                box = _middle(box)
            sprite = _square(sprite.crop(box)).resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)
            sheet.paste(sprite, ((index % SPRITES_A_ROW) * SPRITE, (index // SPRITES_A_ROW) * SPRITE))
        sheet.save(out / f"{style}.png", optimize=True)


def _middle(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    across, down = round((right - left) * _KEY_RIM), round((bottom - top) * _KEY_RIM)
    return left + across, top + down, right - across, bottom - down


def _square(sprite: Image.Image) -> Image.Image:
    side = max(sprite.size)
    square = Image.new("RGBA", (side, side))
    square.paste(sprite, ((side - sprite.width) // 2, (side - sprite.height) // 2))
    return square


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(Path(sys.argv[1]))
