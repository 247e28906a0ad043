"""A conversation, its pictures already codes, as token records: ids and, for each id, who puts it there.

The user's turns, and what the caller of the model supplies, are CONTEXT; what the model writes is TEXT; what it draws, CODE.
Prompts are written by prompts.py, so the model meets at inference exactly what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.records import Conversation
from llada_uni.data.shards import NO_TEXT, Record
from llada_uni.data.templates import template_of
from llada_uni.text.prompts import BareImage, Part, PromptFormat, Turn
from llada_uni.text.tokenizer import TextTokenizer, role


def default_offset(text: TextTokenizer) -> int:
    """Id of image code 0 where no model says it: the next multiple of 64 behind the text tokenizer's ids."""
    return -(-len(text) // 64) * 64


def token_records(
    conversation: Conversation, turns: Sequence[Turn], form: PromptFormat, unconditional: bool = False
) -> list[Record]:
    """One record for the last answer, or one for each answer where the conversation says that all are learned.

    turns: the messages with codes for pictures. unconditional: the words of the user's last turn are replaced by
    `<uncondition>` for good. Otherwise plain drawings and edits remember where these words stand, so that training can replace
    them now and then (`without_text`; classifier-free guidance).
    """
    template, last = template_of(conversation.task), len(turns) - 1
    prompt = form.unconditional if unconditional else form.prompt
    records = []
    for answer in range(1, last + 1, 2) if conversation.learn_all else (last,):
        asked = prompt(template.system, turns[:answer])
        ids, kinds = list(asked), [CONTEXT] * len(asked)
        for stretch, kind in _answer(turns[answer].parts, form, template.header_given):
            ids += stretch
            kinds += [kind] * len(stretch)
        text = NO_TEXT if unconditional or not template.header_given else text_span(turns[:answer], len(asked), form)
        records.append(Record(np.array(ids, np.int32), np.array(kinds, np.int8), conversation.mix, text))
    return records


def text_span(turns: Sequence[Turn], end: int, form: PromptFormat) -> tuple[int, int]:
    """(first position, position after the last) of the text of the user's last turn, in a prompt of `end` ids.

    The template puts it behind the turn's images and before the mark of the assistant's turn.
    """
    stop = end - len(form.text.encode_control(role("ASSISTANT")))
    return stop - sum(len(form.text.encode(part)) for part in turns[-1].parts if isinstance(part, str)), stop


def without_text(record: Record, replacement: Sequence[int]) -> Record:
    """The record with `replacement` (the ids of `<uncondition>`) in place of the user's text.

    The same as `token_records` gives with `unconditional`; a record that does not know where its text stands stays as it is.
    """
    start, stop = record.text
    if (start, stop) == NO_TEXT:
        return record
    ids = np.concatenate([record.ids[:start], np.array(replacement, record.ids.dtype), record.ids[stop:]])
    kinds = np.concatenate([record.kinds[:start], np.full(len(replacement), CONTEXT, record.kinds.dtype), record.kinds[stop:]])
    return Record(ids, kinds, record.task)


def _answer(parts: Sequence[Part], form: PromptFormat, header_given: bool) -> list[tuple[list[int], int]]:
    """Stretches of ids of one kind each. The end mark of a picture is always put by the caller (released generation loop)."""
    out: list[tuple[list[int], int]] = []
    for part in parts:
        if isinstance(part, str):
            out.append((form.text.encode(part), TEXT))
        else:
            assert not isinstance(part, BareImage), "a bare image stands in prompts only"
            block = form.image_block(part)
            header = len(block) - len(part) - 1
            out.append((block[:header], CONTEXT if header_given else TEXT))
            out += [(block[header:-1], CODE), (block[-1:], CONTEXT)]
    if not header_given:
        out.append(([form.text.eos_id], TEXT))
    return out
