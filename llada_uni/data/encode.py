"""Pictures of conversations to codes: each distinct picture once, pictures of one size in batches.

Conversations -> their pictures, shaped as inference shapes them -> codes -> turns of prompts.py.
How a picture is shaped depends on what it is for:
- shown by the user: as questions see it (`understand`), or as edits see it (`edit`, and the edited picture alike, so that
  both show the same part of the scene);
- drawn by the assistant: scaled until it covers the allowed size of its shape, center crop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from llada_uni.data.records import BadRecords, Conversation, Picture
from llada_uni.errors import UserError
from llada_uni.image.batched import batch_attention
from llada_uni.image.codes import ImageCodes
from llada_uni.image.geometry import Preprocessing
from llada_uni.image.preprocess import crop_for_editing, resize_for_understanding
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.text.prompts import Turn

Key = tuple[object, str]
UNDERSTAND, UNDERSTAND_MANY, EDIT, DRAWN = "understand", "understand_many", "edit", "drawn"


def uses(conversation: Conversation) -> list[tuple[Picture, str]]:
    """(picture, what it is for) of every picture, in the order of the messages."""
    shown = sum(len(m.pictures()) for m in conversation.messages if m.role == "user")
    asked = UNDERSTAND if shown == 1 else UNDERSTAND_MANY
    by_role = {"user": asked, "assistant": DRAWN} if conversation.task != "edit" else {"user": EDIT, "assistant": EDIT}
    return [(picture, by_role[m.role]) for m in conversation.messages for picture in m.pictures()]


def shape(picture: Image.Image, use: str, settings: Preprocessing) -> Image.Image:
    """The RGB pixels that are encoded, sides multiples of the patch."""
    if use == EDIT:
        return crop_for_editing(picture, settings)
    if use == DRAWN:
        return crop_for_editing(picture, replace(settings, edit_scale=True))
    return resize_for_understanding(picture, use == UNDERSTAND, settings)


def unscaled_side(settings: Preprocessing) -> int:
    """Pixels at which a square picture needs no scaling to be shown to the model: sources that render use it."""
    return shape(Image.new("RGB", (128, 128)), UNDERSTAND, settings).width


class PictureEncoder:
    """Codes of pictures, remembered by their content. batch: pictures of one size in one pass."""

    def __init__(self, tokenizer: ImageTokenizer, batch: int = 64) -> None:
        batch_attention(tokenizer.vision)
        self.tokenizer, self.batch = tokenizer, batch
        self.codes: dict[Key, ImageCodes] = {}

    def turns(self, conversations: Sequence[Conversation], bad: BadRecords) -> list[tuple[Conversation, tuple[Turn, ...]]]:
        """The conversations with codes in the place of pictures; one with an unusable picture goes to `bad`."""
        usable: list[tuple[Conversation, list[Key]]] = []
        waiting: dict[Key, Image.Image] = {}
        for conversation in conversations:
            try:
                usable.append((conversation, [self._want(picture, use, waiting) for picture, use in uses(conversation)]))
            except UserError as error:
                bad.add(conversation.where, error)
        self._encode(waiting)
        return [(conversation, self._turns_of(conversation, keys)) for conversation, keys in usable]

    def _want(self, picture: Picture, use: str, waiting: dict[Key, Image.Image]) -> Key:
        key = (picture.key(), use)
        if key not in self.codes and key not in waiting:
            waiting[key] = shape(picture.open(), use, self.tokenizer.settings)
        return key

    def _encode(self, waiting: dict[Key, Image.Image]) -> None:
        by_size: dict[tuple[int, int], list[Key]] = defaultdict(list)
        for key, picture in waiting.items():
            by_size[picture.size].append(key)
        for keys in by_size.values():
            for start in range(0, len(keys), self.batch):
                part = keys[start : start + self.batch]
                self.codes.update(zip(part, self.tokenizer.encode_many([waiting[k] for k in part], "raw"), strict=True))

    def _turns_of(self, conversation: Conversation, keys: list[Key]) -> tuple[Turn, ...]:
        codes = iter([self.codes[key] for key in keys])
        return tuple(
            Turn(m.role, tuple(part if isinstance(part, str) else next(codes) for part in m.parts))
            for m in conversation.messages
        )
