"""A conversation, its pictures already codes, as token records: ids and, for each id, who puts it there.

The user's turns, and what the caller of the model supplies, are CONTEXT; what the model writes is TEXT; what it draws, CODE.
Prompts are written by prompts.py, so the model meets at inference exactly what it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.records import Conversation, Message, Part, Picture
from llada_uni.data.shards import Record
from llada_uni.data.templates import template_of
from llada_uni.image.codes import ImageCodes
from llada_uni.prompts import PromptFormat, Turn

Codes = Mapping[Picture, ImageCodes]


def token_records(conversation: Conversation, codes: Codes, form: PromptFormat, unconditional: bool = False) -> list[Record]:
    """One record for the last answer, or one for each answer where the conversation says that all are learnt.

    codes: of every picture of the conversation. unconditional: the words of the user's last turn are replaced by
    `<uncondition>` (training for classifier-free guidance).
    """
    last = len(conversation.messages) - 1
    learnt = range(1, last + 1, 2) if conversation.learn_all else (last,)
    return [_record(conversation, answer, codes, form, unconditional) for answer in learnt]


def _record(conversation: Conversation, answer: int, codes: Codes, form: PromptFormat, unconditional: bool) -> Record:
    template = template_of(conversation.task)
    turns = [Turn(m.role, _parts(m.parts, codes)) for m in conversation.messages[:answer]]
    prompt = form.unconditional if unconditional else form.prompt
    ids = prompt(template.system, turns)
    kinds = [CONTEXT] * len(ids)
    for new, kind in _answer(conversation.messages[answer], codes, form, template.header_given):
        ids += new
        kinds += [kind] * len(new)
    return Record(np.array(ids, np.int32), np.array(kinds, np.int8), conversation.mix)


def _answer(message: Message, codes: Codes, form: PromptFormat, header_given: bool) -> list[tuple[list[int], int]]:
    """Stretches of ids of one kind. The end mark of a picture is always put by the caller (arXiv:2604.20796)."""
    out: list[tuple[list[int], int]] = []
    for part in _parts(message.parts, codes):
        if isinstance(part, str):
            out.append((form.text.encode(part), TEXT))
        else:
            block = form.image_block(part)
            header = len(block) - len(part) - 1
            out.append((block[:header], CONTEXT if header_given else TEXT))
            out += [(block[header:-1], CODE), (block[-1:], CONTEXT)]
    if not header_given:
        out.append(([form.text.eos_id], TEXT))
    return out


def _parts(parts: Sequence[Part], codes: Codes) -> tuple[str | ImageCodes, ...]:
    return tuple(part if isinstance(part, str) else codes[part] for part in parts)
