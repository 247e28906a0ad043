"""LLaVA's and ShareGPT's conversations: a JSON list, or JSONL, of {"id", "image", "conversations": [{"from", "value"}]}.

Also read: "messages" with "role" and "content", several images under "image" or "images", and entries without an image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llada_uni.data.importers.items import BadItem, Found, Item, ReadOptions, SourceImage, file_image
from llada_uni.data.importers.json_stream import json_items, past_mark
from llada_uni.errors import UserError

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PLACE = re.compile(r"\s*<image>\s*")


def read_llava(source: Path, options: ReadOptions) -> Found:
    """Conversations of one .json or .jsonl file. Image paths are relative to `options.images`, else to the file's folder.

    An entry with one answer about images becomes the task `understand`, without images `text`, any other `dialogue`. A system
    text is put before the first thing that the user says: records have no system turn.
    """
    if not source.is_file():
        raise UserError(f"there is no file {source}: a .json or .jsonl with conversations was expected")
    folder = Path(options.images) if options.images else source.parent
    for where, entry in _entries(source):
        if isinstance(entry, UserError):
            yield BadItem(where, str(entry))
            continue
        try:
            yield _item(where, entry, folder)
        except UserError as error:
            yield BadItem(where, str(error))


def _entries(source: Path) -> Iterator[tuple[str, Any]]:
    """(file and line or number, the entry, or a UserError where the line is not JSON)."""
    if source.suffix != ".jsonl":
        yield from ((f"{source}[{number}]", entry) for number, entry in enumerate(json_items(source, "item"), 1))
        return
    with open(source, "rb") as file:
        past_mark(file)
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield f"{source}:{number}", json.loads(line.decode("utf-8"))
                except ValueError as error:
                    yield f"{source}:{number}", UserError(f"is not JSON ({' '.join(str(error).split())[:120]})")


def _item(where: str, entry: Any, folder: Path) -> Item:
    if not isinstance(entry, Mapping):
        raise UserError(f"an entry is a JSON object, not {type(entry).__name__}")
    turns = entry.get("conversations", entry.get("messages"))
    if not isinstance(turns, list) or not turns:
        raise UserError('there are no "conversations" (or "messages")')
    images = _images(entry, folder)
    messages = _messages(turns, len(images))
    task = "dialogue" if len(messages) != 2 else "understand" if images else "text"
    # Ids of these datasets come again; where an entry stands does not.
    return Item(where.rpartition("/")[2], where, tuple(images), {}, tuple(messages), task)


def _images(entry: Mapping[str, Any], folder: Path) -> list[SourceImage]:
    names = entry.get("image", entry.get("images"))
    names = names if isinstance(names, list) else [] if names is None else [names]
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"an image is a path, not {name!r}")
    return [file_image(folder, name) for name in names]


def _messages(turns: list[Any], images: int) -> list[dict[str, Any]]:
    """Our messages; images stand where <image> does, or before the first turn where none is marked."""
    said = [_turn(turn, number) for number, turn in enumerate(turns, 1)]
    system = " ".join(text for role, text in said if role == "system")
    said = [(role, text) for role, text in said if role != "system"]
    marked = sum(len(_PLACE.findall(text)) for _, text in said)
    if marked not in (0, images):
        raise UserError(f"<image> stands {marked} times in the conversation, which has {images} images")
    messages, given = [], 0
    for number, (role, text) in enumerate(said):
        here = images if marked == 0 and number == 0 else len(_PLACE.findall(text))
        text = " ".join(_PLACE.sub("\n", text).split()) if here else text.strip()
        if number == 0 and system:
            text = f"{system} {text}".strip()
        parts: list[dict[str, str]] = [{"type": "image", "image": str(given + i)} for i in range(here)]
        given += here
        if text:
            parts.append({"type": "text", "text": text})
        messages.append({"role": role, "content": parts})
    return messages


def _turn(turn: Any, number: int) -> tuple[str, str]:
    if not isinstance(turn, Mapping):
        raise UserError(f"turn {number} is no object")
    role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if role not in _ROLES:
        raise UserError(f"turn {number} is from {role!r}; allowed: {', '.join(_ROLES)}")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"turn {number} has no text")
    return _ROLES[role], text
