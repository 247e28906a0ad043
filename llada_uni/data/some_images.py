"""A few different images of a source, spread over it, to try a tokenizer on or to learn a small thing from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from llada_uni.data.records import BadRecords, Picture
from llada_uni.data.sources import RecordSource
from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.image.tokenizer import ImageTokenizer


def some_images(source: RecordSource, count: int) -> Iterator[Image.Image]:
    """Different images that can be opened, about equally many of each of up to `count` chunks."""
    chunks = source.chunks()
    chosen = chunks[:: max(1, len(chunks) // count)] if chunks else []
    each = -(-count // max(1, len(chosen)))
    found: set[Picture] = set()
    for chunk in chosen:
        wanted = min(count, len(found) + each)
        for conversation in source.read(chunk, BadRecords("skip")):
            for picture in conversation.pictures():
                if picture in found or len(found) >= wanted:
                    continue
                try:
                    image = picture.open()
                except UserError:
                    continue  # `check` names it
                found.add(picture)
                yield image
            if len(found) >= wanted:
                break


def own_tokenizer(model: str | Path) -> ImageTokenizer:
    """The image tokenizer of a model directory; UserError where there is none."""
    if not IMAGE_TOKENIZER.there(Path(model)):
        raise UserError(f"there is no image_tokenizer in {model}: give a model directory, or the model/ of a run")
    return ImageTokenizer.from_pretrained(IMAGE_TOKENIZER.path(Path(model)))
