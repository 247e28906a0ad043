"""Whether a model was trained on images of this kind: said to those who ask for a change of one that it cannot know.

A tokenizer that learned few kinds of images (the shipped one: small scenes) has a code near every patch of these, and none near
those of a photograph. A directory that knows how near says so ("familiar" in `generation_config.json`); others never warn.
"""

from __future__ import annotations

from PIL import Image

from llada_uni.image.codes import ImageCodes
from llada_uni.tasks.parts import Parts


def unfamiliar(parts: Parts, image: Image.Image | ImageCodes) -> tuple[str, ...]:
    """A notice where an image, as it is read, is of a kind that the model does not know; () where it is, or nobody can tell."""
    least = parts.defaults.familiar
    if least is None or isinstance(image, ImageCodes):
        return ()
    found = parts.image_tokenizer.nearness(image)
    if found >= least:
        return ()
    return (
        f"this model was not trained on images of this kind (its codes fit to {found:.2f}; from {least:.2f} on they are known "
        "ones): what it makes of it will have little to do with it",
    )
