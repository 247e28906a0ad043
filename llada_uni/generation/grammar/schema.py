"""A JSON schema of bounded depth -> a regular expression for the JSON texts that it allows.

What is written is a part of what the schema allows: properties in the order of the schema and no others, no white space but one
space behind a comma or colon, numbers of at most 15 digits. Recursive references are followed `REFERENCES` deep, values without
a schema `FREE` containers deep; whatever needs more is left out where it may be, and else an error. A keyword that a
regular expression cannot keep is an error that names it: nothing is ignored but annotations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from llada_uni.errors import UserError
from llada_uni.generation.grammar.scalars import escaped, number, string

REFERENCES = 3  # how often a reference may stand inside itself
FREE = 2  # containers inside one another, of a value without a schema
OBJECT = 3  # the same, of any JSON object
DEPTH = 32  # schemas inside one another
COMMA, COLON = ", ?", ": ?"
ANNOTATIONS = frozenset(
    "title description default examples deprecated readOnly writeOnly $schema $id $comment $defs definitions discriminator "
    "$anchor contentMediaType contentEncoding strict".split()
)
BY_TYPE = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "boolean": (),
    "null": (),
}
GENERAL = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
KNOWN = {word for words in BY_TYPE.values() for word in words} | {*GENERAL}
STRING = string({})


class TooDeep(Exception):
    """A reference that stands inside itself more often than is followed."""


def any_object(containers: int = OBJECT) -> str:
    """Any JSON object with at most so many containers inside one another."""
    return _object_of(STRING, _any_value(containers - 1))


def regex_of(schema: Any) -> str:
    """The expression of a schema. UserError for what is no schema, and for keywords that are not supported."""
    if not isinstance(schema, dict | bool):
        raise UserError(f"a JSON schema is an object, not {type(schema).__name__}")
    try:
        return _Compiler(schema).value(schema, "#", ())
    except TooDeep as error:
        raise UserError(f"the JSON schema has no end: {error} always holds itself once more") from None
    except RecursionError:
        raise UserError(f"the JSON schema is nested too deep; allowed: {DEPTH} levels") from None


class _Compiler:
    """Expressions of the parts of one schema. `where`: the way to a part, for errors; `open`: the references it stands in."""

    def __init__(self, root: dict | bool) -> None:
        self.root = root

    def value(self, schema: Any, where: str, open: tuple[str, ...]) -> str:
        if schema is True or schema == {}:
            return _any_value(FREE)
        if schema is False:
            self.fail(where, "false allows nothing")
        if not isinstance(schema, dict):
            self.fail(where, "a schema is an object")
        if where.count("/") > DEPTH:
            raise RecursionError
        unknown = [word for word in schema if word not in KNOWN and word not in ANNOTATIONS]
        if unknown:
            self.fail(where, f"the keyword {unknown[0]!r} is not supported; supported: {', '.join(sorted(KNOWN))}")
        general = [word for word in GENERAL if word in schema and word != "type"]
        if len(general) > 1 and set(general) != {"enum", "const"}:
            self.fail(where, f"{general[0]} together with {general[1]} is not supported")
        if general and general[0] not in ("enum", "const"):
            beside = [word for word in schema if word in KNOWN and word not in (general[0], "type")]
            if beside:
                self.fail(where, f"{general[0]} together with {beside[0]} is not supported")
            return self.combined(general[0], schema, where, open)
        if general:
            return self.listed(schema, where)
        kinds = self.types(schema, where)
        return _either([self.typed(kind, schema, where, open) for kind in kinds])

    def types(self, schema: dict, where: str) -> list[str]:
        """The types a schema allows: those it names, else those that its keywords are about."""
        named = schema.get("type")
        if named is None:
            found = [kind for kind, words in BY_TYPE.items() if set(words) & set(schema)]
            if not found:
                return list(BY_TYPE)
            return [found[0]]
        kinds = [named] if isinstance(named, str) else named
        if not isinstance(kinds, list) or not kinds or any(kind not in BY_TYPE for kind in kinds):
            self.fail(where, f"the type {named!r} is unknown; known: {', '.join(BY_TYPE)}")
        foreign = [w for w in schema if w in KNOWN and w not in GENERAL and not any(w in BY_TYPE[kind] for kind in kinds)]
        if foreign:
            self.fail(where, f"{foreign[0]!r} says nothing about {' or '.join(kinds)}")
        return kinds

    # --- schemas that are put together ---

    def combined(self, word: str, schema: dict, where: str, open: tuple[str, ...]) -> str:
        if word == "$ref":
            target = schema["$ref"]
            if open.count(target) >= REFERENCES:
                raise TooDeep(target)
            return self.value(self.referred(target, where), where + "/$ref", (*open, target))
        parts = schema[word]
        if not isinstance(parts, list) or not parts:
            self.fail(where, f"{word} must be a list of schemas")
        if word == "allOf" and len(parts) > 1:
            self.fail(where, "allOf with more than one schema is not supported")
        if word == "oneOf":
            self.check_apart(parts, where)
        found, deep = [], None
        for i, part in enumerate(parts):
            try:
                found.append(self.value(part, f"{where}/{word}/{i}", open))
            except TooDeep as error:
                deep = error
        if not found:
            assert deep is not None, "there are parts"
            raise deep
        return _either(found)

    def referred(self, target: Any, where: str) -> Any:
        if not isinstance(target, str) or not target.startswith("#"):
            self.fail(where, f"$ref {target!r}: only references inside the schema are followed (#/...)")
        place: Any = self.root
        for name in target.removeprefix("#").strip("/").split("/") if target.strip("#/") else ():
            key = name.replace("~1", "/").replace("~0", "~")
            if not isinstance(place, dict) or key not in place:
                self.fail(where, f"$ref {target!r} leads nowhere")
            place = place[key]
        return place

    def check_apart(self, parts: Sequence[Any], where: str) -> None:
        """oneOf wants exactly one to fit: allowed where types, or a property with one value, tell the parts apart."""
        resolved = [self.referred(p["$ref"], where) if isinstance(p, dict) and set(p) == {"$ref"} else p for p in parts]
        marks = [_marks(part) for part in resolved]
        for i, one in enumerate(marks):
            for other in marks[:i]:
                if not any(name in other and not (one[name] & other[name]) for name in one):
                    self.fail(where, "oneOf: its schemas must differ in type, or in a required property with one value each")

    # --- schemas of one type ---

    def listed(self, schema: dict, where: str) -> str:
        """One of given values."""
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list) or not values:
            self.fail(where, "enum must be a list of values")
        rest = [word for word in schema if word in KNOWN and word not in ("type", "enum", "const")]
        if rest or ("enum" in schema and "const" in schema and schema["const"] not in schema["enum"]):
            self.fail(where, f"enum or const together with {rest[0] if rest else 'another one'} is not supported")
        if "type" in schema:
            kinds = self.types({"type": schema["type"]}, where)
            values = [value for value in values if any(_is(value, kind) for kind in kinds)]
            if not values:
                self.fail(where, f"none of the values is of the type {schema['type']!r}")
        return _either([escaped(json.dumps(value, ensure_ascii=False)) for value in values])

    def typed(self, kind: str, schema: dict, where: str, open: tuple[str, ...]) -> str:
        if kind == "object":
            return self.object(schema, where, open)
        if kind == "array":
            return self.array(schema, where, open)
        if kind in ("boolean", "null"):
            return "(true|false)" if kind == "boolean" else "null"
        try:
            return string(schema) if kind == "string" else number(schema, kind == "integer")
        except ValueError as error:
            self.fail(where, str(error))

    def object(self, schema: dict, where: str, open: tuple[str, ...]) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            self.fail(where, "properties must be an object, and required a list")
        undeclared = [name for name in required if name not in properties]
        if undeclared:
            self.fail(where, f"the required property {undeclared[0]!r} is not among the properties")
        more = schema.get("additionalProperties", True)
        if not properties:
            if more is False:
                return r"\{\}"
            return _object_of(STRING, self.value(more, where + "/additionalProperties", open))
        if isinstance(more, dict):
            self.value(more, where + "/additionalProperties", open)  # never written, but it must be one
        pairs = []
        for name, part in properties.items():
            try:
                value = self.value(part, f"{where}/properties/{name}", open)
            except TooDeep:
                if name in required:
                    raise
                continue
            pairs.append((escaped(json.dumps(name, ensure_ascii=False)) + COLON + value, name in required))
        return r"\{" + _sequence(pairs) + r"\}"

    def array(self, schema: dict, where: str, open: tuple[str, ...]) -> str:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in (least, *(() if most is None else (most,)))):
            self.fail(where, "minItems and maxItems must be whole numbers from 0")
        if most is not None and most < least:
            self.fail(where, f"minItems {least} is more than maxItems {most}")
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            self.fail(where, "prefixItems must be a list of schemas")
        if schema.get("uniqueItems") and (most is None or most > 1):
            self.fail(where, "uniqueItems is not supported")
        items = [self.value(part, f"{where}/prefixItems/{i}", open) for i, part in enumerate(first)]
        items = items[: len(items) if most is None else most]
        rest = schema.get("items", True)
        if rest is False or most == len(items):
            if least > len(items):
                self.fail(where, f"minItems {least} is more than there can be")
            return r"\[" + _sequence([(item, True) for item in items]) + r"\]"
        try:
            item = self.value(rest, where + "/items", open)
        except TooDeep:
            if least > len(items):
                raise
            return r"\[" + _sequence([(item, True) for item in items]) + r"\]"
        again, limit = max(0, least - len(items)), None if most is None else most - len(items)
        if items:
            body = COMMA.join(items) + _times(f"({COMMA}{item})", again, limit)
        else:
            body = item + _times(f"({COMMA}{item})", max(0, again - 1), None if limit is None else limit - 1)
            body = f"({body})?" if again == 0 else body
        return rf"\[{body}\]"

    def fail(self, where: str, reason: str) -> NoReturn:
        raise UserError(f"JSON schema, at {where}: {reason}")


# --- pieces of expressions ---


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"


def _times(part: str, least: int, most: int | None) -> str:
    if most is None:
        return part + ("*" if least == 0 else f"{{{least},}}")
    return "" if most == 0 else f"{part}{{{least},{most}}}"


def _sequence(pairs: Sequence[tuple[str, bool]]) -> str:
    """Parts with commas between them, in order; (part, whether it must be there)."""
    fixed = next((i for i, (_, needed) in enumerate(pairs) if needed), None)
    if fixed is not None:
        before = "".join(f"({part}{COMMA})?" for part, _ in pairs[:fixed])
        behind = "".join(COMMA + part if needed else f"({COMMA}{part})?" for part, needed in pairs[fixed + 1 :])
        return before + pairs[fixed][0] + behind
    ways = [part + "".join(f"({COMMA}{more})?" for more, _ in pairs[i + 1 :]) for i, (part, _) in enumerate(pairs)]
    return f"({'|'.join(ways)})?" if ways else ""


def _object_of(name: str, value: str) -> str:
    pair = name + COLON + value
    return rf"\{{({pair}({COMMA}{pair})*)?\}}"


def _any_value(containers: int) -> str:
    """Any JSON value with at most so many containers inside one another."""
    value = _either([STRING, number({}, False), "true", "false", "null"])
    for _ in range(containers):
        value = _either([value, _object_of(STRING, value), rf"\[({value}({COMMA}{value})*)?\]"])
    return value


def _is(value: Any, kind: str) -> bool:
    """Whether a value is of a type of JSON."""
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and float(value).is_integer())
    return kind == ("string" if isinstance(value, str) else "array" if isinstance(value, list) else "object")


def _marks(schema: Any) -> dict[str, frozenset[str]]:
    """What tells a schema from others: its types, and the values of required properties that have given ones."""
    if not isinstance(schema, Mapping):
        return {}
    found = {}
    values = _values(schema)
    if values is not None:
        found["="] = values
    kinds = schema.get("type")
    if kinds is not None:
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        found["type"] = frozenset(kinds | ({"integer"} if "number" in kinds else set()))
    for name, part in (schema.get("properties") or {}).items():
        values = _values(part) if name in schema.get("required", ()) else None
        if values is not None:
            found[f".{name}"] = values
    return found


def _values(schema: Any) -> frozenset[str] | None:
    """The values of an enum or const, as JSON."""
    if not isinstance(schema, Mapping) or not {"enum", "const"} & set(schema):
        return None
    values = [schema["const"]] if "const" in schema else schema["enum"]
    return frozenset(json.dumps(value, sort_keys=True) for value in values) if isinstance(values, list) else None


