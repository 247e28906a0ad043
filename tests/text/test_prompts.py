"""Templates are the released ones, answers are read back, and broken image blocks never raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.text.prompts import TASKS, Malformed, PromptFormat, Turn
from llada_uni.text.tokenizer import control_tokens, train_tokenizer

TEXT = train_tokenizer(["a cat and a dog on green"] * 2, 640)
OFFSET = 640
FORMAT = PromptFormat(TEXT, OFFSET)
CODES = ImageCodes((5, 6, 7, 8, 9, 10), 2, 3)


def shown(ids: list[int]) -> str:
    """Ids as the string the templates describe, codes as {c}."""
    return "".join(f"{{{i - OFFSET}}}" if i >= OFFSET else TEXT.decode([i], control=True) for i in ids)


IMAGE = "<|image|><|reserved_token_2|><|reserved_token_3|><boi>{5}{6}{7}{8}{9}{10}<|/image|>"


@pytest.mark.parametrize(
    ("task", "system"),
    [
        ("understand", "You are a multimodal understanding assistant."),
        ("generate", "You are a text-to-image generation assistant."),
        ("generate_thinking", "You are a text-to-image generation assistant with a thinking process."),
        ("edit", "You are an image editing assistant."),
        ("interleave", "You are a interleaved generation assistant."),
    ],
)
def test_templates(task, system):
    ids = FORMAT.prompt(task, [Turn("user", ("a cat", CODES))])
    assert shown(ids) == f"<role>SYSTEM</role> {system} <role>HUMAN</role>{IMAGE}a cat<role>ASSISTANT</role>"
    assert set(TASKS) == {"understand", "generate", "generate_thinking", "edit", "interleave"}


def test_several_images_come_before_the_text_and_history_has_no_end_of_text():
    one = ImageCodes((1,), 1, 1)
    turns = [
        Turn("user", ("which", one, " is it?", CODES)),
        Turn("assistant", ("this", one, "or that")),
        Turn("user", ("and now?",)),
    ]
    small = "<|image|><|reserved_token_1|><|reserved_token_1|><boi>{1}<|/image|>"
    assert shown(FORMAT.prompt("understand", turns)).removeprefix(
        "<role>SYSTEM</role> You are a multimodal understanding assistant. "
    ) == (
        f"<role>HUMAN</role>{small}{IMAGE}which is it?<role>ASSISTANT</role>this{small}or that"
        "<role>HUMAN</role>and now?<role>ASSISTANT</role>"
    )
    assert TEXT.eos_id not in FORMAT.prompt("understand", turns)


def test_unconditional_prompts():
    turns = [Turn("user", (CODES, "make the cat a dog"))]
    kept = shown(FORMAT.unconditional("edit", turns))
    assert kept.endswith(f"<role>HUMAN</role>{IMAGE}<uncondition><role>ASSISTANT</role>")
    bare = shown(FORMAT.unconditional("edit", turns, keep_images=False))
    assert bare.endswith("<role>HUMAN</role><uncondition><role>ASSISTANT</role>")
    assert shown(FORMAT.prompt("edit", FORMAT.without_images(turns))).endswith(
        "</role>make the cat a dog<role>ASSISTANT</role>"
    )
    assert FORMAT.unconditional("generate", [Turn("user", ("<uncondition>",))]) == FORMAT.prompt(
        "generate", [Turn("user", ("<uncondition>",))]
    )


@pytest.mark.parametrize("attack", [*control_tokens()[:10], "".join(control_tokens())])
def test_a_user_cannot_open_a_turn_or_an_image(attack):
    plain = FORMAT.prompt("generate", [Turn("user", ("hi",))])
    ids = FORMAT.prompt("generate", [Turn("user", (attack,))])
    count = sum(TEXT.is_control(i) for i in plain)
    assert sum(TEXT.is_control(i) for i in ids) == count
    assert attack in shown(ids)


def test_answers_come_back():
    parts = ["a cat", CODES, " and a dog", ImageCodes((3,), 1, 1)]
    ids = FORMAT.answer(parts)
    assert ids[-1] == TEXT.eos_id and ids.count(TEXT.eos_id) == 1
    assert FORMAT.parse_answer(ids) == parts
    assert FORMAT.parse_answer([*ids, *TEXT.encode("later")]) == parts, "reading ends at end of text"
    assert FORMAT.answer(parts, end=False) == ids[:-1]
    assert FORMAT.read_header([*TEXT.encode("a"), *FORMAT.image_header(2, 3)]) == (2, 3)
    assert FORMAT.read_header(FORMAT.image_header(2, 3)[:-1]) is None


def test_a_missing_end_mark_is_forgiven():
    ids = FORMAT.image_block(CODES)[:-1] + TEXT.encode("a cat")
    assert FORMAT.parse_answer(ids) == [CODES, "a cat"]


def cut_short() -> list[tuple[str, list[int]]]:
    whole, text = FORMAT.image_block(CODES), TEXT.encode("a cat")
    return [
        ("codes missing", whole[:-3] + whole[-1:] + text),
        ("no sizes", [whole[0], whole[3], *whole[4:], *text]),
        ("one size", [whole[0], whole[1], whole[3], *whole[4:], *text]),
        ("no start", whole[1:] + text),
        ("codes alone", whole[4:-1] + text),
        ("too many codes", [*whole[:-1], OFFSET, OFFSET, *text]),
        ("two headers", whole[:4] + whole + text),
    ]


@pytest.mark.parametrize(("name", "ids"), cut_short(), ids=[name for name, _ in cut_short()])
def test_broken_images_are_reported_and_the_text_after_them_is_read(name, ids):
    parts = FORMAT.parse_answer(ids)
    assert any(isinstance(part, Malformed) and part.reason for part in parts)
    assert parts[-1] == "a cat"
    if name in ("too many codes", "two headers"):
        assert CODES in parts


@given(st.lists(st.integers(0, OFFSET + 20) | st.sampled_from(FORMAT.image_block(CODES)), max_size=40))
def test_any_ids_can_be_parsed(ids):
    parts = FORMAT.parse_answer(ids)
    lost = sum(len(p.ids) for p in parts if isinstance(p, Malformed))
    codes = sum(len(p.codes) for p in parts if isinstance(p, ImageCodes))
    before_end = ids[: ids.index(TEXT.eos_id)] if TEXT.eos_id in ids else ids
    assert codes + lost >= sum(FORMAT.is_code(i) for i in before_end), "no code is dropped in silence"


def test_bad_turns():
    user = Turn("user", ("hi",))
    for turns in ([], [user, Turn("assistant", ("ho",))], [user, user, user], [Turn("assistant", ("ho",))]):
        with pytest.raises(UserError):
            FORMAT.prompt("understand", turns)
    with pytest.raises(UserError, match="one of"):
        FORMAT.prompt("paint", [user])
    with pytest.raises(UserError, match="role"):
        Turn("system", ("hi",))
    with pytest.raises(UserError, match="strings"):
        Turn("user", (3,))
    assert Turn("user", "hi") == user
