"""Whether a model was trained on images of this kind: said to those who ask for a change of one that it cannot know.

A tokenizer that learned few kinds of images (the shipped one: small scenes) has a code near every patch of these, and none near
those of a photograph. A directory that knows how near says so ("familiar" in `generation_config.json`); others never warn.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from llada_uni.image.codes import ImageCodes
from llada_uni.tasks.common import encode_pictures, own_codes
from llada_uni.tasks.parts import Parts


def encode_for_change(
    parts: Parts, images: Sequence[Image.Image | ImageCodes]
) -> tuple[list[ImageCodes], list[tuple[str, ...]]]:
    """Codes of images as they are; and for each a notice where it is of a kind that the model does not know, () where it is of
    a known one, or nobody can tell.
    """
    least = parts.defaults.familiar
    if least is None:
        return encode_pictures(parts, list(images), "raw"), [()] * len(images)
    codes: list[ImageCodes] = []
    notices: list[tuple[str, ...]] = []
    for image in images:
        if isinstance(image, ImageCodes):
            codes.append(own_codes(parts, image))
            notices.append(())
        else:
            found, nearness = parts.image_tokenizer.encode_with_nearness(image, "raw")
            codes.append(found)
            notices.append(_notice(nearness, least))
    return codes, notices


def _notice(nearness: float, least: float) -> tuple[str, ...]:
    if nearness >= least:
        return ()
    return (
        f"this model was not trained on images of this kind (its codes fit to {nearness:.2f}; from {least:.2f} on they are "
        "known ones): what it makes of it will have little to do with it",
    )
