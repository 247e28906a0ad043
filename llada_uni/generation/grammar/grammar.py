"""What a text is held to: one grammar over the tokens of one model, made once and kept.

regex, JSON schema or choices -> `expression_of` -> an expression -> `Grammars.of` -> Grammar, which `Settings.grammar` takes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llada_uni.errors import UserError
from llada_uni.generation.grammar.expression import ByteAutomaton, automaton_of
from llada_uni.generation.grammar.lift import TokenAutomaton, Vocabulary
from llada_uni.generation.grammar.scalars import escaped
from llada_uni.generation.grammar.schema import any_object, regex_of

if TYPE_CHECKING:
    from llada_uni.generation.grammar.slow import SlowGrammar

KEPT = 64  # grammars of a model that are kept, the last ones used


class Grammar:
    """An automaton over bytes with the tokens of a model. fast: what the engine uses; slow: its twin, of the oracle."""

    def __init__(self, automaton: ByteAutomaton, vocabulary: Vocabulary) -> None:
        self.automaton, self.vocabulary = automaton, vocabulary

    @cached_property
    def fast(self) -> TokenAutomaton:
        return self.vocabulary.lift(self.automaton)

    @cached_property
    def slow(self) -> SlowGrammar:
        from llada_uni.generation.grammar.slow import SlowGrammar  # it needs torch, an expression does not

        return SlowGrammar(self.automaton, self.vocabulary.spelled, self.vocabulary.end_token)

    def check_length(self, most: int) -> None:
        """UserError where no text of the grammar fits into so many tokens, the end token included."""
        if self.fast.shortest >= self.fast.states:
            raise UserError("the grammar cannot be kept: the tokens of this model spell no text of it")
        if self.fast.shortest > most:
            raise UserError(
                f"the grammar cannot be finished within max_tokens: its shortest text takes {self.fast.shortest} tokens, "
                f"the end included, and {most} are allowed"
            )


class Grammars:
    """The grammars of one model's tokens; several threads may ask."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, regex: str) -> Grammar:
        """The grammar of an expression. UserError as `expression.automaton_of`."""
        with self._lock:
            grammar = self._kept.get(regex)
        if grammar is None:
            grammar = Grammar(automaton_of(regex), self.vocabulary)
        with self._lock:
            self._kept[regex] = grammar
            self._kept.move_to_end(regex)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return grammar


def expression_of(regex: str | None = None, json_schema: Any = None, choices: Sequence[str] | None = None) -> str | None:
    """The expression of a request, None where it asks for no grammar. UserError for a schema that is not supported."""
    if regex is not None:
        return regex
    if json_schema is not None:
        return any_object() if json_schema == {"type": "object"} else regex_of(json_schema)
    return None if choices is None else "|".join(escaped(choice) for choice in choices)
