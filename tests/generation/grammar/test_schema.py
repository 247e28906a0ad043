"""Every text that the expression of a schema matches is JSON that the schema allows; what is not supported is named."""

from __future__ import annotations

import json
import random
import re

import jsonschema_rs
import pytest

from llada_uni.errors import UserError
from llada_uni.generation.grammar.expression import DEAD, automaton_of
from llada_uni.generation.grammar.scalars import number, string
from llada_uni.generation.grammar.schema import any_object, regex_of

TREE = {
    "$defs": {"N": {"type": "object", "properties": {"v": {"type": "integer"}, "n": {"$ref": "#/$defs/N"}}, "required": ["v"]}},
    "$ref": "#/$defs/N",
}
LIST = {
    "$defs": {"L": {"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [{"$ref": "#/$defs/L"}], "items": False}]}},
    "$ref": "#/$defs/L",
}
SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {"const": "é\"\\x"}}},
    {"type": "object", "properties": {"a": {"enum": [1, "x", None, {"y": [1.5]}]}, "b": {"type": "number"}}, "required": ["b"]},
    {"type": "array", "items": {"type": ["string", "null"], "maxLength": 3}, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [{"const": 1}, {"type": "boolean"}], "items": {"type": "integer"}, "minItems": 3},
    {"type": "array", "prefixItems": [{"const": 1}, {"type": "boolean"}], "items": False},
    {"type": "array", "minItems": 2, "items": {"enum": ["a", "b"]}},
    {"anyOf": [{"type": "string", "minLength": 2, "maxLength": 4}, {"type": "number", "minimum": -2.5, "maximum": 3}]},
    {"oneOf": [{"properties": {"k": {"const": c}, c: {"type": "integer"}}, "required": ["k", c]} for c in "pq"]},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "number", "minimum": -3, "exclusiveMaximum": -1},
    {"type": "integer", "exclusiveMinimum": -105, "maximum": 1234},
    {"type": "integer", "minimum": 97},
    {"type": "string", "pattern": "^[A-Z]\\d{2}\\S*.[^,]$"},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"allOf": [{"type": "string", "format": "date"}]},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email"},
    TREE,
    LIST,
]


def random_texts(regex, count, seed=0):
    """Texts that the expression matches, of random steps that turn to the shortest way after a while."""
    automaton, rng = automaton_of(regex), random.Random(seed)
    far = [0 if final else 10**6 for final in automaton.final]
    ways = [[(b, int(t)) for b, t in enumerate(row) if t != DEAD] for row in automaton.next]
    for _ in ways:
        for state, steps in enumerate(ways):
            far[state] = min([far[state], *(1 + far[target] for _, target in steps)])
    for _ in range(count):
        state, text, limit = 0, b"", rng.randint(0, 60)
        while not (automaton.final[state] and (len(text) > limit or rng.random() < 0.2)):
            steps = ways[state]
            if not steps:
                break
            if len(text) > limit:
                steps = [min(steps, key=lambda step: far[step[1]])]
            byte, state = rng.choice(steps)
            text += bytes([byte])
        yield text.decode("utf-8")


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_what_is_matched_is_allowed(schema):
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    texts = set(random_texts(regex_of(schema), 60))
    for text in texts:
        assert validator.is_valid(json.loads(text)), text
    assert len(texts) > 1


def test_any_object():
    texts = list(random_texts(any_object(2), 60))
    assert all(isinstance(json.loads(text), dict) for text in texts)
    assert automaton_of(any_object(2)).accepts(b'{"a": {"b": 1}, "d":null}')
    assert not automaton_of(any_object(2)).accepts(b'{"a": {"b": {}}}')


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 7), (0, 120), (97, 105), (-5, 3), (-120, -99), (8, 1234), (-1, 10)])
def test_ranges_hold_exactly_their_numbers(low, high):
    regex = re.compile(number({"minimum": low, "maximum": high}, whole=True))
    for n in range(-2000, 2000):
        assert bool(regex.fullmatch(str(n))) == (low <= n <= high)
    assert not regex.fullmatch("007")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "multipleOf": 3}, "'multipleOf' is not supported"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "#/properties/a: the keyword 'not'"),
        ({"type": "object", "patternProperties": {}}, "'patternProperties' is not supported"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems is not supported"),
        ({"type": "string", "format": "hostname"}, "the format 'hostname' is not supported; supported: date"),
        ({"type": "string", "pattern": "\\n"}, "characters that JSON escapes"),
        ({"type": "string", "pattern": "[!-~]"}, "the range !-~"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "pattern together with a length"),
        ({"type": "number", "minimum": 0.2, "maximum": 0.8}, "no two whole numbers between 0.2 and 0.8"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no whole number between 5 and 4"),
        ({"type": "string", "minLength": 4, "maxLength": 3}, "minLength 4 is more than maxLength 3"),
        ({"type": "array", "minItems": 4, "maxItems": 3}, "minItems 4 is more than maxItems 3"),
        ({"type": "strnig"}, "the type 'strnig' is unknown"),
        ({"type": "string", "minimum": 3}, "'minimum' says nothing about string"),
        ({"allOf": [{}, {}]}, "allOf with more than one schema"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf: its schemas must differ"),
        ({"$ref": "http://x/y"}, "only references inside the schema"),
        ({"$ref": "#/$defs/X"}, "leads nowhere"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "the required property 'a'"),
        ({"enum": []}, "enum must be a list of values"),
        ({"type": "string", "enum": [1]}, "none of the values is of the type 'string'"),
        (False, "false allows nothing"),
        ("string", "a JSON schema is an object"),
        ({"$defs": {"N": {"properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}}, "$ref": "#/$defs/N"},
         "has no end: #/$defs/N always holds itself"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(schema, said):
    with pytest.raises(UserError, match=re.escape(said)):
        regex_of(schema)


def test_a_schema_nested_too_deep():
    schema: dict = {"type": "string"}
    for _ in range(60):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UserError, match="nested too deep; allowed: 32"):
        regex_of(schema)


def test_a_recursive_schema_is_followed_to_a_bounded_depth():
    automaton = automaton_of(regex_of(TREE))
    assert automaton.accepts(b'{"v": 1, "n": {"v": 2, "n": {"v": 3}}}')
    assert not automaton.accepts(b'{"v": 1, "n": {"v": 2, "n": {"v": 3, "n": {"v": 4}}}}')


def test_strings_hold_escapes_and_no_bare_control_characters():
    automaton = automaton_of(string({}))
    assert automaton.accepts('"é \\" \\n 😀"'.encode()) and automaton.accepts(b'""')
    assert not any(automaton.accepts(text) for text in (b'"\n"', b'"a"b"', b'"\\x"', b'"a'))
