"""Pictures with words, for training the image tokenizer, the autoencoder and the decoder.

    pictures = open_pictures("my-data/", side=64).draw(random.Random(0), 16)

Conversation records (a picture with all that its records say about it), or a plug-in that makes pictures
on the fly -> `Picture`s of one square size. A draw depends on the rng alone.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from llada_uni import plugins
from llada_uni.data import records
from llada_uni.data.sources import conversations, open_source
from llada_uni.errors import UserError

SPLITS = ("train", "heldout", "any")
_HELD_OUT = 20  # of records, one picture in so many is held out


@dataclass(frozen=True)
class Picture:
    """image: uint8 [side, side, 3]; caption: "" where no record describes it; questions: (question, answer) pairs."""

    image: np.ndarray
    caption: str
    questions: tuple[tuple[str, str], ...]


class PictureSource(Protocol):
    """Endless pictures."""

    def draw(self, rng: random.Random, count: int) -> list[Picture]: ...


def open_pictures(source: str, side: int, split: str = "train", need: str | None = None) -> PictureSource:
    """Pictures of `side` pixels.

    source: a file or folder of conversation records, or the name of a plug-in's images. split: "train" never shows what is
    held out (of records: one picture in twenty, chosen by its name), "heldout" only that, "any" both.
    need: "caption" or "questions" leaves out the pictures of which the records have none.
    UserError for other names, or when no picture is left.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
    if need not in (None, "caption", "questions"):
        raise UserError(f"pictures can be asked to have a caption or questions, not {need!r}")
    if source in plugins.table("images"):
        return plugins.load("images", source)(side, split)
    return RecordPictures(source, side, split, need)


@dataclass
class _Said:
    """What all records together say about one picture."""

    captions: list[str] = field(default_factory=list)
    questions: list[tuple[str, str]] = field(default_factory=list)


class RecordPictures:
    """Pictures of conversation records, opened when drawn; only names and words are kept in memory."""

    def __init__(self, source: str, side: int, split: str, need: str | None = None) -> None:
        self.side = side
        said: dict[records.Picture, _Said] = {}
        for conversation in conversations(open_source(source), records.BadRecords("stop")):
            _listen(conversation, said)
        entries = sorted(said.items(), key=lambda entry: (zlib.crc32(entry[0].name.encode()), entry[0].name))
        if need is not None:
            entries = [(p, words) for p, words in entries if (words.captions if need == "caption" else words.questions)]
        held_out = -(-len(entries) // _HELD_OUT)
        self.entries = {"train": entries[held_out:], "heldout": entries[:held_out], "any": entries}[split]
        if not self.entries:
            wanted = f" with {need}" if need else ""
            raise UserError(f"{source} has no pictures{wanted} in the split {split!r}")

    def draw(self, rng: random.Random, count: int) -> list[Picture]:
        return [self._open(rng, *rng.choice(self.entries)) for _ in range(count)]

    def _open(self, rng: random.Random, picture: records.Picture, said: _Said) -> Picture:
        square = ImageOps.fit(picture.open(), (self.side, self.side), Image.Resampling.BICUBIC)
        words = rng.choice(said.captions) if said.captions else ""
        return Picture(np.asarray(square), words, tuple(said.questions))


def _listen(conversation: records.Conversation, said: dict[records.Picture, _Said]) -> None:
    """Adds what a record says about its pictures: a caption, or questions about the only picture it shows."""
    for picture in conversation.pictures():
        said.setdefault(picture, _Said())
    shown = list(conversation.pictures())
    if len(shown) != 1:
        return
    about = said[shown[0]]
    asked, answers = conversation.messages[::2], conversation.messages[1::2]
    if conversation.task == "t2i":
        about.captions.append(asked[-1].text())
    elif conversation.task == "caption":
        about.captions.append(answers[-1].text())
    elif conversation.task in ("understand", "dialogue"):
        about.questions += [(q.text(), a.text()) for q, a in zip(asked, answers, strict=True) if q.text() and a.text()]
