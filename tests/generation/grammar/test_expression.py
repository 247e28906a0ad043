"""Expressions become the smallest automaton; those that are broken, empty or endless to build are errors in words."""

from __future__ import annotations

import pytest

from llada_uni.errors import UserError
from llada_uni.generation.grammar import expression
from llada_uni.generation.grammar.expression import automaton_of


def test_matches_whole_texts():
    automaton = automaton_of("a|bc*")
    assert [automaton.accepts(text) for text in (b"a", b"b", b"bccc")] == [True] * 3
    assert [automaton.accepts(text) for text in (b"", b"ab", b"bca")] == [False] * 3
    assert automaton_of("^ab$").accepts(b"ab") and automaton_of("a\\$").accepts(b"a$")
    assert automaton_of("é{2}").accepts("éé".encode()) and automaton_of("").accepts(b"")


@pytest.mark.parametrize(("regex", "states"), [("a|bc*", 3), ("(ab|cb)x", 4), ("(a|b|c)*", 1), ("aa|ba|ca", 3)])
def test_is_as_small_as_can_be(regex, states):
    assert len(automaton_of(regex).next) == states


@pytest.mark.parametrize(
    ("regex", "said"),
    [
        ("(", "cannot be read"),
        ("[^\\s\\S]", "nothing matches it"),
        ("a^b", "nothing matches it"),
        ("(?=a)b", "look-around and back references are not allowed"),
        ("(a)\\1", "look-around and back references are not allowed"),
        ("\\ud800", "cannot be read"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_broken_expressions(regex, said):
    with pytest.raises(UserError, match=said):
        automaton_of(regex)


def test_an_expression_that_explodes_costs_bounded_time(monkeypatch):
    monkeypatch.setattr(expression, "SECONDS", 2)
    with pytest.raises(UserError, match="is too large"):
        automaton_of("(a|b)*a(a|b){21}")
