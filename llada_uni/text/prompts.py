"""Task templates, image blocks, and reading an answer back. User text stays text.

Turns of a conversation (strings and grids of image codes) -> prompt ids for the backbone;
ids of an answer -> strings, grids of codes, and what was malformed. Training records are built with the same
functions, so the model meets at inference exactly the ids it was trained on.

Templates after the released configuration:
    <role>SYSTEM</role> {system} <role>HUMAN</role>{images}{text}<role>ASSISTANT</role>{answer}
    an image is  <|image|> <|reserved_token_H|> <|reserved_token_W|> <boi>  H*W codes  <|/image|>
with image code c standing as token `image_token_offset + c`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.text.tokenizer import SYSTEM_TEXTS as TASKS
from llada_uni.text.tokenizer import UNCONDITION, TextTokenizer, role

__all__ = ["TASKS", "UNCONDITION", "Malformed", "Part", "PromptFormat", "Turn"]

@dataclass(frozen=True)
class BareImage:
    """An image mark without an image: what stands for the images in a prompt that is to have none (published editing)."""


Part = str | ImageCodes | BareImage


@dataclass(frozen=True)
class Turn:
    """What one side said: role "user" or "assistant", parts in order."""

    role: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise UserError(f"unknown role {self.role!r}: a turn is by 'user' or 'assistant'")
        parts = (self.parts,) if isinstance(self.parts, Part) else tuple(self.parts)
        for part in parts:
            if not isinstance(part, Part):
                raise UserError(f"a turn holds strings and image codes, not {type(part).__name__}")
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True)
class Malformed:
    """Ids of an answer that are neither text nor a whole image, and what is wrong with them."""

    ids: tuple[int, ...]
    reason: str


class PromptFormat:
    """Prompts of one model: its tokenizer and the id of image code 0.

    bare_image: whether a user turn that lost its images (`without_images`) keeps one `<|image|>`, as in the published code.
    """

    def __init__(self, text: TextTokenizer, image_token_offset: int, bare_image: bool = False) -> None:
        self.text = text
        self.image_token_offset = image_token_offset
        self.bare_image = bare_image

    # --- writing ---

    def image_header(self, height: int, width: int) -> list[int]:
        """Ids that open an image of height x width codes, up to and including `<boi>`."""
        text = self.text
        return [text.image_start_id, text.size_id(height), text.size_id(width), text.boi_id]

    def image_block(self, codes: ImageCodes) -> list[int]:
        """A whole image: header, H*W codes in raster order, end mark."""
        body = [self.image_token_offset + code for code in codes.codes]
        return [*self.image_header(codes.height, codes.width), *body, self.text.image_end_id]

    def parts(self, parts: Sequence[Part]) -> list[int]:
        """Text and images in the order given. Text is encoded as a person's text: it cannot hold control
        tokens.
        """
        ids: list[int] = []
        for part in parts:
            if isinstance(part, BareImage):
                ids.append(self.text.image_start_id)
            else:
                ids += self.text.encode(part) if isinstance(part, str) else self.image_block(part)
        return ids

    def user(self, parts: Sequence[Part]) -> list[int]:
        """Content of a user turn: its images first, then its text, as the template has it."""
        images = [part for part in parts if not isinstance(part, str)]
        return self.parts([*images, *(part for part in parts if isinstance(part, str))])

    def prompt(self, task: str, turns: Sequence[Turn]) -> list[int]:
        """Ids up to and including `<role>ASSISTANT</role>`; the answer comes next.

        turns: user and assistant by turns, first and last by the user. Earlier answers carry no end of text.
        UserError for an unknown task or another order of turns.
        """
        if task not in TASKS:
            raise UserError(f"unknown task {task!r}: it is one of {', '.join(TASKS)}")
        if not turns or len(turns) % 2 == 0:
            raise UserError("a conversation begins and ends with the user's turn")
        control = self.text.encode_control
        ids = control(f"{role('SYSTEM')} {TASKS[task]} ")
        for number, turn in enumerate(turns):
            if turn.role != ("user", "assistant")[number % 2]:
                raise UserError("user and assistant must take turns, the user first")
            if turn.role == "user":
                ids += control(role("HUMAN")) + self.user(turn.parts) + control(role("ASSISTANT"))
            else:
                ids += self.parts(turn.parts)
        return ids

    def conversation(self, task: str, turns: Sequence[Turn], opened: bool = True, ended: bool = True) -> list[int]:
        """Ids of a conversation, as training and other programs see it.

        opened: as `prompt`, up to where the assistant speaks. Else it ends with its last turn: the user's, or the assistant's
        with the end of text, or without it where that turn is to be gone on with (`ended` False).
        """
        if opened or not turns:
            return self.prompt(task, turns)
        if turns[-1].role == "assistant":
            return self.prompt(task, turns[:-1]) + self.answer(turns[-1].parts, ended)
        return self.prompt(task, turns)[: -len(self.text.encode_control(role("ASSISTANT")))]

    def unconditional(self, task: str, turns: Sequence[Turn], keep_images: bool = True) -> list[int]:
        """The prompt of the branch without words: what the user says becomes `<uncondition>`.

        Only the user's last turn is emptied of its words. Its images stay, as editing guidance wants, unless
        `keep_images` is False; then no image of any user turn is kept.
        """
        if not turns:
            raise UserError("a conversation begins and ends with the user's turn")
        out = list(turns) if keep_images else self.without_images(turns)
        images = [part for part in out[-1].parts if isinstance(part, ImageCodes)]
        out[-1] = Turn("user", (*images, UNCONDITION))
        return self.prompt(task, out)

    def without_images(self, turns: Sequence[Turn]) -> list[Turn]:
        """The same turns with the user's images left out (the branch of editing guidance that sees no
        source).
        """
        out = []
        for turn in turns:
            text = tuple(part for part in turn.parts if isinstance(part, str))
            mark = (BareImage(),) if self.bare_image and len(text) < len(turn.parts) else ()
            out.append(turn if turn.role == "assistant" else Turn("user", (*mark, *text)))
        return out

    def answer(self, parts: Sequence[Part], end: bool = True) -> list[int]:
        """What the assistant writes: text and images in order, then end of text if `end`. Targets of
        training.
        """
        return self.parts(parts) + ([self.text.eos_id] if end else [])

    # --- reading ---

    def is_code(self, token_id: int) -> bool:
        return token_id >= self.image_token_offset

    def read_header(self, ids: Sequence[int]) -> tuple[int, int] | None:
        """(height, width) if `ids` end with a well-formed image header, else None."""
        text = self.text
        if len(ids) < 4 or ids[-4] != text.image_start_id or ids[-1] != text.boi_id:
            return None
        height, width = text.size_of(ids[-3]), text.size_of(ids[-2])
        return None if height is None or width is None else (height, width)

    def parse_answer(self, ids: Sequence[int]) -> list[str | ImageCodes | Malformed]:
        """Text, images and broken stretches of an answer, in order; reading ends at end of text. Never raises
        for ids.

        A whole grid of codes without its end mark is accepted. A broken image takes with it its header and
        its codes.
        """
        text = self.text
        out: list[str | ImageCodes | Malformed] = []
        words: list[int] = []
        image_ids = {text.image_start_id, text.image_end_id, text.boi_id}

        def flush() -> None:
            if words:
                out.append(text.decode(words))
                words.clear()

        at = 0
        while at < len(ids) and ids[at] != text.eos_id:
            token = ids[at]
            if token == text.image_start_id:
                flush()
                part, at = self._read_image(ids, at)
                out.append(part)
            elif token in image_ids or self.is_code(token) or text.size_of(token) is not None:
                flush()
                start = at
                while at < len(ids) and (
                    self.is_code(ids[at])
                    or text.size_of(ids[at]) is not None
                    or ids[at] in (text.image_end_id, text.boi_id)
                ):
                    at += 1
                out.append(Malformed(tuple(ids[start:at]), "image tokens without a header"))
            else:
                if not text.is_control(token):  # a stray mask or role mark says nothing
                    words.append(token)
                at += 1
        flush()
        return out

    def _read_image(self, ids: Sequence[int], start: int) -> tuple[ImageCodes | Malformed, int]:
        size = self.read_header(ids[start : start + 4])
        at = start + 1
        if size is None:
            while at < len(ids) and (
                self.is_code(ids[at])
                or self.text.size_of(ids[at]) is not None
                or ids[at] in (self.text.boi_id, self.text.image_end_id)
            ):
                at += 1
            return Malformed(tuple(ids[start:at]), "an image header needs two sizes and <boi>"), at
        height, width = size
        at = start + 4
        while at < len(ids) and at < start + 4 + height * width and self.is_code(ids[at]):
            at += 1
        codes = tuple(token - self.image_token_offset for token in ids[start + 4 : at])
        if len(codes) == height * width:
            ended = at < len(ids) and ids[at] == self.text.image_end_id
            return ImageCodes(codes, height, width), at + ended
        if at < len(ids) and ids[at] == self.text.image_end_id:
            at += 1
        reason = f"the header says {height} x {width} codes, {len(codes)} came"
        return Malformed(tuple(ids[start:at]), reason), at
