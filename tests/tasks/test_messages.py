"""Conversations as programs send them become turns: user and assistant by turns, the user first and last."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llada_uni.errors import UserError
from llada_uni.tasks.messages import read_messages
from llada_uni.text.prompts import Turn

PARTS = SimpleNamespace(defaults=SimpleNamespace(as_published=False))


def turns(*messages):
    return read_messages(PARTS, [{"role": role, "content": content} for role, content in messages])


def test_two_turns_of_one_side_are_one():
    read = turns(("user", "a fox."), ("user", "on green"), ("assistant", "yes"), ("assistant", "done"), ("user", "and now?"))
    assert read == [
        Turn("user", ("a fox.", "\n", "on green")),
        Turn("assistant", ("yes", "\n", "done")),
        Turn("user", ("and now?",)),
    ]


def test_a_greeting_stands_before_the_words_of_the_user():
    read = turns(("assistant", "hello"), ("user", "a fox"), ("assistant", "yes"), ("user", "and now?"))
    assert read == [Turn("user", ("hello", "\n", "a fox")), Turn("assistant", ("yes",)), Turn("user", ("and now?",))]


def test_an_answer_without_content_says_nothing():
    assert turns(("user", "a"), ("assistant", None), ("user", "b"))[1] == Turn("assistant", ("",))


def test_system_text_between_two_turns_of_the_user():
    assert turns(("user", "a"), ("system", "be brief"), ("user", "b")) == [Turn("user", ("a", "\n", "be brief\n", "b"))]


@pytest.mark.parametrize("said", ["", "  "])
def test_a_user_without_words_is_still_refused(said):
    with pytest.raises(UserError, match="needs words"):
        turns(("user", "a"), ("user", said))
