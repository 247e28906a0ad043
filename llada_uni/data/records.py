"""Conversation records: what one line of training data says, and every check that it is usable.

A parsed JSON object -> `parse_record` -> `Conversation` (roles, texts, references to pictures), or a
UserError that says what is wrong with it. Where the objects come from (JSONL, tar shards, plug-ins) is the business
of sources.py; the format with examples is in docs/data.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from PIL import Image

from llada_uni.data.templates import template_of
from llada_uni.errors import UserError
from llada_uni.image.reader import image_size, open_image

FIELDS = ("id", "task", "messages", "rejected", "learn", "mix", "meta")
LEARN = ("answer", "all")
OnBad = Literal["stop", "skip"]
ON_BAD = get_args(OnBad)


class Picture(Protocol):
    """A picture that a record refers to. `key`: equal for equal pictures, whatever they are called."""

    @property
    def name(self) -> str: ...

    def key(self) -> object: ...

    def open(self) -> Image.Image:
        """The checked RGB picture; UserError when it is missing, damaged or out of the limits."""
        ...


@dataclass(frozen=True)
class PictureFile:
    """A picture in a file of its own."""

    path: Path
    name: str

    def key(self) -> object:
        try:
            return hashlib.sha256(self.path.read_bytes()).digest()
        except OSError:
            raise UserError(f"there is no picture {self.path}") from None

    def open(self) -> Image.Image:
        return open_image(self.path)

    def dimensions(self) -> tuple[int, int]:
        """(width, height) of the upright picture, from the file's header alone."""
        return image_size(self.path)


class PictureBytes:
    """What a picture is that is read as bytes: `read` gives its file, `where` says in messages where it lies."""

    @property
    def where(self) -> str:
        raise NotImplementedError

    def read(self) -> bytes:
        raise NotImplementedError

    def key(self) -> object:
        return hashlib.sha256(self.read()).digest()

    def open(self) -> Image.Image:
        with self._named():
            return open_image(self.read())

    def dimensions(self) -> tuple[int, int]:
        """(width, height) of the upright picture, from the file's header alone."""
        with self._named():
            return image_size(self.read())

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors say where the picture lies."""
        try:
            yield
        except UserError as error:
            raise UserError(str(error).replace("the picture", self.where, 1)) from None


@dataclass(frozen=True)
class PictureSlice(PictureBytes):
    """A picture inside a larger file (a tar shard): `size` bytes from `offset` on, called `name`."""

    path: Path
    name: str
    offset: int
    size: int

    @property
    def where(self) -> str:
        return f"{self.path}[{self.name}]"

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


Part = str | Picture


@dataclass(frozen=True)
class Message:
    """One turn. role: "user" or "assistant"; parts: texts and pictures in the order given."""

    role: str
    parts: tuple[Part, ...]

    def pictures(self) -> list[Picture]:
        return [part for part in self.parts if not isinstance(part, str)]

    def text(self) -> str:
        """Its texts, joined by spaces."""
        return " ".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True)
class Conversation:
    """One record. task: a key of TEMPLATES; messages: user and assistant by turns, the last by the assistant.

    learn_all: every answer is learned, not the last one alone. mix: the name under which mixing weights count it.
    where: file and line, for messages. rejected: parts of a last answer that is worse, for training from preferences. meta:
    what the record says besides, for reward functions (both: training/reward).
    """

    id: str
    task: str
    messages: tuple[Message, ...]
    learn_all: bool
    mix: str
    where: str
    rejected: tuple[Part, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def pictures(self) -> Iterator[Picture]:
        for message in self.messages:
            yield from message.pictures()

    def texts(self) -> Iterator[str]:
        for message in self.messages:
            yield from (part for part in message.parts if isinstance(part, str))


class BadRecords:
    """What is done about records and images that cannot be used: "stop" at the first, or "skip" and keep the list.

    most: more than so many are not skipped any more (None: any number). found: one line each, "file:line: reason".
    """

    def __init__(self, on_bad: str = "stop", most: int | None = None) -> None:
        if on_bad not in ON_BAD:
            raise UserError(f"bad records: {on_bad!r} is no choice; allowed: {', '.join(ON_BAD)}")
        self.stop, self.most = on_bad == "stop", most
        self.found: list[str] = []

    def add(self, where: str, reason: object) -> None:
        """Notes one; UserError when the first is to stop the work, or when they are too many."""
        line = f"{where}: {' '.join(str(reason).split())}"
        if self.stop:
            raise UserError(line)
        self.found.append(line)
        if self.most is not None and len(self.found) > self.most:
            raise UserError(f"{line}; that makes {len(self.found)} that cannot be used, more than the {self.most} allowed")


def parse_record(data: Any, where: str, picture: Callable[[str], Picture]) -> Conversation:
    """A record from its JSON object. UserError with the reason when it is not usable; pictures are not opened here.

    where: file and line; picture: finds the picture that a part of type "image" names.
    """
    if not isinstance(data, dict):
        raise UserError(f"a record is a JSON object, not {type(data).__name__}")
    for name in ("task", "messages"):
        if name not in data:
            raise UserError(f'the field "{name}" is missing')
    for name in data:
        if name not in FIELDS:
            raise UserError(f'unknown field "{name}"; allowed: {", ".join(FIELDS)} (put anything of yours under "meta")')
    template_of(data["task"])
    learn, mix = data.get("learn", "answer"), data.get("mix", data["task"])
    if learn not in LEARN:
        raise UserError(f'"learn" is {learn!r}; allowed: {", ".join(LEARN)}')
    if not isinstance(mix, str) or not mix.strip():
        raise UserError(f'"mix" is {mix!r}; allowed: a name')
    for name, value in (("mix", mix), ("id", str(data.get("id", "")))):
        _check_unicode(value, f'"{name}"')
    messages = _messages(data["messages"], picture)
    rejected = _parts(data["rejected"], '"rejected"', picture) if "rejected" in data else ()
    meta = data["meta"] if isinstance(data.get("meta"), dict) else {}
    own = str(data.get("id", where))
    conversation = Conversation(own, data["task"], messages, learn == "all", mix, where, rejected, meta)
    check_conversation(conversation)
    return conversation


def _messages(data: Any, picture: Callable[[str], Picture]) -> tuple[Message, ...]:
    if not isinstance(data, list):
        raise UserError('"messages" must be a list')
    found = []
    for number, message in enumerate(data, 1):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise UserError(f'message {number} must be an object with exactly "role" and "content"')
        if message["role"] not in ("user", "assistant"):
            hint = " (the system text comes from the task)" if message["role"] == "system" else ""
            raise UserError(f"message {number} is by {message['role']!r}; allowed: user, assistant{hint}")
        found.append(Message(message["role"], _parts(message["content"], f"message {number}", picture)))
    return tuple(found)


def _parts(content: Any, what: str, picture: Callable[[str], Picture]) -> tuple[Part, ...]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise UserError(f'"content" of {what} must be a text or a list of parts that is not empty')
    parts: list[Part] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "image") or set(part) != {"type", kind}:
            raise UserError(
                f'a part of {what} is neither {{"type": "text", "text": ...}} nor {{"type": "image", "image": ...}}'
            )
        value = part[kind]
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{what} has an empty {kind}")
        _check_unicode(value, f"the {kind} of {what}")
        parts.append(value if kind == "text" else picture(value))
    return tuple(parts)


def _check_unicode(text: str, what: str) -> None:
    """UserError when `text` holds half a surrogate pair, which JSON can say (\\ud83d) and no tokenizer can read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{what} holds half a character, \\u{ord(text[error.start]):x} (half a surrogate pair)") from None


def check_conversation(conversation: Conversation) -> None:
    """UserError unless the turns alternate, the assistant has the last one, and the task has what it needs."""
    messages, template = conversation.messages, template_of(conversation.task)
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise UserError("nothing to learn: a conversation ends with a turn by the assistant, after one by the user")
    for number, message in enumerate(messages):
        wanted = ("user", "assistant")[number % 2]
        if message.role != wanted:
            raise UserError(f"message {number + 1} is by the {message.role}; user and assistant take turns, the user first")
    shown = sum(len(message.pictures()) for message in messages if message.role == "user")
    if template.pictures == "none" and shown:
        raise UserError(f"task {conversation.task}: the user shows no pictures here, {shown} found")
    if template.pictures == "some" and not shown:
        raise UserError(f"task {conversation.task}: the user must show a picture, none found")
    learned = messages[1::2] if conversation.learn_all else messages[-1:]
    for message in learned:
        _check_answer(message, conversation.task, template.answer)


def _check_answer(message: Message, task: str, wanted: str) -> None:
    pictures, texts = len(message.pictures()), len(message.parts) - len(message.pictures())
    fits = {
        "text": pictures == 0,
        "picture": pictures == 1 and texts == 0,
        "both": pictures > 0 and texts > 0,
        "any": True,
    }
    if not fits[wanted]:
        say = {"text": "text only", "picture": "exactly one picture and no text", "both": "text and a picture"}[wanted]
        raise UserError(f"task {task}: the answer must be {say}; it has {texts} texts and {pictures} pictures")
