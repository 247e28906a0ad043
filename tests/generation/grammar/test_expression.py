"""Expressions become the smallest automaton; those that are broken, empty or endless to build are errors in words."""

from __future__ import annotations

import re

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
        ("a^b", "cannot be read"),
        ("(?=a)b", "nothing matches it"),
        ("\\bab", "cannot be read"),
        ("(a)\\1", "back references are not allowed"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_broken_expressions(regex, said):
    with pytest.raises(UserError, match=said):
        automaton_of(regex)


def test_characters_of_several_bytes():
    """Named ones, all others, and what is no UTF-8: as Python's expressions have it, character for character."""
    borders = (0x7FF, 0x800, 0xD7FF, 0xE000, 0x20AC, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF)
    samples = [chr(code) for code in (*range(0x70, 0x110), *borders)]
    for regex in ("[^éa€]", "[à-ÿ😀]", ".", "[^\\x00-\\xff]", "é|.b"):
        automaton = automaton_of(regex)
        for letter in samples:
            assert automaton.accepts(letter.encode()) == bool(re.fullmatch(regex, letter)), (regex, letter)
        broken = (b"\xc3", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf5\x80\x80\x80", b"\xf4\x90\x80\x80")
        assert not any(automaton.accepts(text) for text in broken)


def test_an_expression_that_explodes_costs_bounded_time(monkeypatch):
    monkeypatch.setattr(expression, "SECONDS", 2)
    with pytest.raises(UserError, match="is too large"):
        automaton_of("(a|b)*a(a|b){30}")
