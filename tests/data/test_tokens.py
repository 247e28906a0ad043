"""Conversations as ids and kinds: what each task gives the model, what it learns, word by word."""

from __future__ import annotations

import pytest

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.records import PictureFile, parse_record
from llada_uni.data.shards import NO_TEXT
from llada_uni.data.templates import TEMPLATES
from llada_uni.data.tokens import default_offset, token_records, without_text
from llada_uni.image.codes import ImageCodes
from llada_uni.text.prompts import PromptFormat, Turn
from llada_uni.text.tokenizer import UNCONDITION, train_tokenizer
from tests.data.test_records import GOOD

LETTERS = {CONTEXT: "c", TEXT: "t", CODE: "d"}
SHOWN, DRAWN = ImageCodes((1, 2), 1, 2), ImageCodes((3,), 1, 1)
SHOWN_BLOCK = "<|image|><|reserved_token_1|><|reserved_token_2|><boi>[1][2]<|/image|>"


@pytest.fixture(scope="module")
def form():
    text = train_tokenizer(["a cat"], 480)
    return PromptFormat(text, default_offset(text))


def turns_of(conversation):
    codes = {"user": SHOWN, "assistant": DRAWN}
    return [Turn(m.role, tuple(p if isinstance(p, str) else codes[m.role] for p in m.parts)) for m in conversation.messages]


def told(form, task, unconditional=False, **more):
    """Every record of the task's example as (text of the ids, runs of kinds): "c:" given, "t:" written, "d:" drawn."""
    conversation = parse_record(GOOD[task] | more, "here", lambda name: PictureFile(name, name))
    out = []
    for record in token_records(conversation, turns_of(conversation), form, unconditional):
        runs = []
        for token, kind in zip(record.ids.tolist(), record.kinds.tolist(), strict=True):
            code = form.is_code(token)
            if not runs or runs[-1][0] != kind:
                runs.append((kind, []))
            runs[-1][1].append(f"[{token - form.image_token_offset}]" if code else form.text.decode([token], control=True))
        out.append(" | ".join(f"{LETTERS[kind]}:{''.join(words)}" for kind, words in runs))
        assert record.task == more.get("mix", task)
    return out


def prompt(system, *parts):
    return f"<role>SYSTEM</role> {system} <role>HUMAN</role>{''.join(parts)}<role>ASSISTANT</role>"


SEES = "You are a multimodal understanding assistant."
HEADER = "<|image|><|reserved_token_1|><|reserved_token_1|><boi>"


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (
            "t2i",
            f"c:{prompt('You are a text-to-image generation assistant.', 'a red thing')}{HEADER} | d:[3] | c:<|/image|>",
        ),
        (
            "think",
            f"c:{prompt('You are a text-to-image generation assistant with a thinking process.', 'one and one apples')}"
            f" | t:two{HEADER} | d:[3] | c:<|/image|> | t:<|endoftext|>",
        ),
        ("understand", f"c:{prompt(SEES, SHOWN_BLOCK, 'what color is it?')} | t:red<|endoftext|>"),
        ("caption", f"c:{prompt(SEES, SHOWN_BLOCK, 'describe it')} | t:a cat<|endoftext|>"),
        (
            "edit",
            f"c:{prompt('You are an image editing assistant.', SHOWN_BLOCK, 'remove it')}{HEADER} | d:[3] | c:<|/image|>",
        ),
        (
            "story",
            f"c:{prompt('You are a interleaved generation assistant.', 'a tale')} | t:one{HEADER} | d:[3] | c:<|/image|>"
            " | t:end<|endoftext|>",
        ),
        ("text", f"c:{prompt(SEES, 'hello')} | t:good day<|endoftext|>"),
    ],
)
def test_a_record_of_every_task(form, task, expected):
    assert told(form, task) == [expected]


def test_all_answers_or_the_last_alone(form):
    first = f"c:{prompt(SEES, SHOWN_BLOCK, 'what?')} | t:a cat<|endoftext|>"
    past = f"{prompt(SEES, SHOWN_BLOCK, 'what?')}a cat<role>HUMAN</role>draw it<role>ASSISTANT</role>"
    last = f"c:{past} | t:{HEADER} | d:[3] | c:<|/image|> | t:<|endoftext|>"
    assert told(form, "dialogue") == [first, last]
    assert told(form, "dialogue", learn="answer", mix="chat") == [last]


def test_without_words_pictures_stay(form):
    (drawn,) = told(form, "t2i", unconditional=True)
    assert "HUMAN</role><uncondition><role>" in drawn
    (edited,) = told(form, "edit", unconditional=True)
    assert f"HUMAN</role>{SHOWN_BLOCK}<uncondition><role>" in edited
    assert edited.endswith("| d:[3] | c:<|/image|>")


@pytest.mark.parametrize("task", sorted(GOOD))
def test_leaving_the_text_out_later_gives_what_extraction_would(form, task):
    """`without_text` and `unconditional` are two ways to one prompt: of plain drawings and edits, and of no other task."""
    conversation = parse_record(GOOD[task], "here", lambda name: PictureFile(name, name))
    records = token_records(conversation, turns_of(conversation), form)
    bare = [without_text(record, form.text.encode(UNCONDITION)) for record in records]
    given = TEMPLATES[task].header_given
    for one, other in zip(bare, token_records(conversation, turns_of(conversation), form, unconditional=given), strict=True):
        assert one.ids.tolist() == other.ids.tolist() and one.kinds.tolist() == other.kinds.tolist()
    assert given == any(record.text != NO_TEXT for record in records)
    for record in records if given else ():
        assert form.text.decode(record.ids[slice(*record.text)].tolist()) == conversation.messages[-2].text()


def test_a_person_cannot_write_control_tokens(form):
    record = {"task": "text", "messages": [{"role": "user", "content": "<boi>"}, {"role": "assistant", "content": "<|mask|>"}]}
    conversation = parse_record(record, "here", lambda name: PictureFile(name, name))
    (made,) = token_records(conversation, turns_of(conversation), form)
    assert not {form.text.boi_id, form.text.mask_id} & set(made.ids.tolist())


def test_codes_start_at_a_multiple_of_64_behind_the_text(form):
    assert form.image_token_offset % 64 == 0
    assert len(form.text) <= form.image_token_offset < len(form.text) + 64
