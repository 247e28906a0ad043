"""Messages of a conversation, as people write them, become turns of codes and text.

A text, or messages with words and pictures -> checked turns for the prompt. The template has a
fixed system text for each task, so the words of a system message go in front of the user's words that follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.tasks.checks import check_text, open_picture
from llada_uni.tasks.common import own_codes
from llada_uni.tasks.parts import Parts
from llada_uni.text.prompts import Turn


def read_messages(parts: Parts, messages: Any) -> list[Turn]:
    """Turns of codes and text from a prompt, or from messages {"role": "user" or "assistant", "content":
    ...}.

    Roles may also be "system", with words only. Content is a string, a picture (also one of our results), or a
    list of these; items may also be {"type": "text", "text": ...} and {"type": "image", "image": ...}. UserError
    for anything else, and for an empty user turn. Messages of one side in a row are one turn of it; what an
    assistant says first (a greeting) stands before the user's words, like a system message.
    """
    read = _read(messages)
    for role, items in read:
        silent = not any(isinstance(item, str) and item.strip() for item in items)
        shown = any(not isinstance(item, str) for item in items)
        if role == "user" and silent and not (shown and parts.defaults.as_published):
            raise UserError("a user's message needs words: it has none")
    read = _by_turns(read)
    alone = sum(not isinstance(item, str) for _, items in read for item in items) == 1
    turns = []
    for role, items in read:
        done: list[str | ImageCodes] = []
        for item in items:
            if isinstance(item, Image.Image):
                done.append(parts.image_tokenizer.encode(item, mode="understand", alone=alone))
            else:
                done.append(item if isinstance(item, str) else own_codes(parts, item))
        turns.append(Turn(role, tuple(done)))
    return turns


def text_turns(messages: Any) -> list[Turn]:
    """Turns of a conversation without images. UserError where there are any, and as `read_messages`."""
    read = _read(messages)
    if not all(isinstance(item, str) for _, items in read for item in items):
        raise UserError("only text can be read here: images need the image tokenizer (of transformers' users: AutoProcessor)")
    return [Turn(role, tuple(items)) for role, items in read]


def _read(messages: Any) -> list[tuple[str, list[Any]]]:
    """(role, items) of every message, those of the role "system" put into the user's."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": check_text(messages, "prompt")}]
    if not isinstance(messages, Sequence) or not messages:
        raise UserError("messages must be a text or a list of {'role': ..., 'content': ...}")
    return _with_system_words([_read_message(message) for message in messages])


def _read_message(message: Any) -> tuple[str, list[Any]]:
    """(role, items) of one message."""
    if isinstance(message, Turn):
        return message.role, list(message.parts)
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise UserError("a message must hold 'role' and 'content'")
    content = message["content"]
    if content is None:  # OpenAI's form of an answer without text
        content = ""
    items = content if isinstance(content, list | tuple) else [content]
    return message["role"], [_read_item(item) for item in items]


def _with_system_words(read: list[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    """The messages without those of the role "system", whose words stand before the user's next ones."""
    out: list[tuple[str, list[Any]]] = []
    waiting: list[str] = []
    for role, items in read:
        if role == "system":
            if not all(isinstance(item, str) for item in items):
                raise UserError("a message of the role 'system' holds words only")
            waiting += [f"{item.strip()}\n" for item in items]
        elif role == "user":
            has_words = any(isinstance(item, str) and item.strip() for item in items)
            out.append((role, [*waiting, *items] if has_words else items))
            waiting = []
        else:
            out.append((role, items))
    if waiting:
        raise UserError("after a message of the role 'system' there must be one of the role 'user'")
    return out


def _by_turns(read: list[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    """User and assistant by turns, the user first, as the template has them.

    A greeting that answered an empty turn would stand where no model has seen one: the shipped model then says nothing.
    """
    turns: list[tuple[str, list[Any]]] = []
    for role, items in read:
        before = turns[-1][0] if turns else None
        if before == role or (before == "assistant" and len(turns) == 1):
            turns[-1] = (role, [*turns[-1][1], "\n", *items])
        else:
            turns.append((role, items))
    return turns


def _read_item(item: Any) -> str | Image.Image | ImageCodes:
    if isinstance(item, Mapping):
        kind = item.get("type")
        if kind == "text" and isinstance(item.get("text"), str):
            return str(item["text"])
        if kind == "image" and "image" in item:
            picture = item["image"]
            return open_picture(picture)
        raise UserError("an item of a message is {'type': 'text', 'text': ...} or {'type': 'image', 'image': ...}")
    if isinstance(item, str | ImageCodes):
        return item
    return open_picture(item)
