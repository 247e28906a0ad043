"""Words as they settle: nothing is taken back, no half characters, no part of a stop string, and the same text in the end."""

from __future__ import annotations

import pytest

from llada_uni.tasks.settled import SettledText, cut


class Letters:
    """A tokenizer with a token for every byte."""

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


def pieces(text: str, stops=(), step: int = 1) -> tuple[list[str], bool]:
    """What comes out while the bytes of `text` settle, `step` at a time, and at the end."""
    ids, settled, out = list(text.encode()), SettledText(Letters(), stops), []
    for end in range(step, len(ids) + step, step):
        out.append(settled.take(ids[:end]))
        if settled.stopped:
            break
    out.append(settled.end(cut(text, stops)[0]))
    return [piece for piece in out if piece], settled.stopped


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "text", ["a cat and a dog", "  spaces around  ", "héllo — 猫と犬 🐈", "\n\nlines\n\nmore\n", "", "\ufffd odd \ufffd"]
)
def test_the_pieces_are_the_text(text, step):
    found, stopped = pieces(text, (), step)
    assert "".join(found) == text.strip() and not stopped


@pytest.mark.parametrize("step", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("one. two. three", (".",), "one"),
        ("one END two", ("END",), "one"),
        ("one EN two END three", ("END",), "one EN two"),
        ("one two EN", ("END",), "one two EN"),
        ("\n\nfirst\n\nsecond", ("\n\n",), ""),
        ("a xaby", ("ab", "xaby"), "a x"),
        ("aab", ("ab", "aab"), ""),
    ],
)
def test_stop_strings_never_appear_and_do_not_depend_on_the_steps(text, stops, left, step):
    found, stopped = pieces(text, stops, step)
    assert "".join(found) == left and stopped == (left != text)


def test_characters_come_whole():
    assert pieces("é猫")[0] == ["é", "猫"]


def test_what_may_be_the_beginning_of_a_stop_is_held_back():
    settled = SettledText(Letters(), ("END",))
    assert settled.take(b"one EN") == "one" and settled.take(b"one ENE") == " EN" and settled.take(b"one ENEN") == ""
    assert settled.take(b"one ENEND") == "" and settled.stopped
