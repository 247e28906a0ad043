"""Frozen records whose values are checked, and whose errors are one line that a person can act on.

pydantic checks the values; `explain` turns the first thing it found wrong into a `UserError` that names the field, the value
given, and what is allowed. Settings of generation, requests and the directory's defaults are such records.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from llada_uni.errors import UserError

C = TypeVar("C", bound="Checked")


class Checked(BaseModel):
    """A frozen record. Values of another type are errors, not guesses; unknown names are errors, with the nearest known one.

    `renamed`: names of earlier versions that are no field any more -> what to use instead, for messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    renamed: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **values: Any) -> None:
        """UserError for an unknown name, a missing value, and one that is not allowed."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(explain(error, type(self))) from None

    def replace(self: C, **changes: Any) -> C:
        """A copy with other values, checked again."""
        return type(self)(**{**dict(self), **changes})

    @classmethod
    def from_text(cls: type[C], text: str) -> C:
        """The record of "name=value,name=value", where all values are numbers: what a command line or a form can say."""
        found: dict[str, float] = {}
        for part in text.split(","):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in cls.model_fields:
                raise UserError(unknown(name, cls.model_fields, cls.renamed))
            whole = schema_of(cls, name).get("type") == "integer"
            try:
                found[name] = int(value) if whole else float(value)
            except ValueError:
                raise UserError(f"{name} must be {allowed(cls, name)}, not {value!r}") from None
        return cls(**found)

    def given(self) -> dict[str, Any]:
        """The values that are not None, by name."""
        return {name: value for name, value in self if value is not None}

    def overlaid(self: C, data: Mapping[str, Any], where: str = "") -> C:
        """A copy with the values of `data`; a group of settings inside takes a part of its own settings as a mapping.

        where: what stands before the names in messages (a file, a section). UserError for what does not fit.
        """
        changes = {}
        for name, value in data.items():
            old = getattr(self, name) if name in type(self).model_fields else None
            if is_group(type(self), name) and not isinstance(value, Checked):
                if not isinstance(value, Mapping):
                    raise UserError(f"{_before(where)}{name!r} must hold settings, not {value!r}")
                assert isinstance(old, Checked), "a group is always there"
                value = old.overlaid(value, f"{where} {name}".strip())
            changes[name] = value
        try:
            return self.replace(**changes)
        except UserError as error:
            raise UserError(f"{_before(where)}{error}") from None


def is_group(kind: type[Checked], name: str) -> bool:
    """Whether a field of `kind` is a group of settings that is always there (an optional one is a value as any other)."""
    field = kind.model_fields.get(name)
    return field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, Checked)


def explain(error: ValidationError, kind: type[Checked]) -> str:
    """What was wrong, as one line: field, value given, what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = path[0] if path else ""
    if first["type"] == "extra_forbidden":
        return unknown(name, kind.model_fields, kind.renamed)
    if first["type"] == "missing":
        return f"{kind.__name__}: {name} is missing"
    if first["type"] == "string_unicode":
        return f"{name} is no valid Unicode text"
    if first["type"] == "value_error":  # raised by a validator of ours, which says what is allowed
        message = str(first["ctx"]["error"])
        return f"{name}: {message}" if name and not _begins_with(message, name) else message
    return f"{name} must be {allowed(kind, name)}, not {first['input']!r}"


def unknown(name: str, known: Iterable[str], renamed: Mapping[str, str], what: str = "setting") -> str:
    """The line for a name that is no field: its new name, else the nearest known one, else all that are known."""
    if name in renamed:
        return f"{name} is no {what} any more: use {renamed[name]}"
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {what} {name!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")


def schema_of(kind: type[Checked], name: str) -> dict[str, Any]:
    """JSON schema of one field, without the null of an optional one: "type" with bounds, or "enum", or {} for any value."""
    whole = _schema(kind)
    schema = whole["properties"][name]
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    merged = {**{key: value for key, value in schema.items() if key != "anyOf"}, **options[0]}
    if "$ref" in merged:
        merged |= whole["$defs"][merged.pop("$ref").rsplit("/", 1)[1]]
    return merged


@cache
def _schema(kind: type[Checked]) -> dict[str, Any]:
    return kind.model_json_schema()


def allowed(kind: type[Checked], name: str) -> str:
    """What a field takes, in words."""
    schema = schema_of(kind, name)
    nullable = None if kind.model_fields[name].is_required() else kind.model_fields[name].default
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    words = {"boolean": "true or false", "string": "a string", "array": "a list", "object": "a group of settings"}
    kind_of = schema.get("type", "")
    if kind_of not in ("integer", "number"):
        text = words.get(kind_of, "another value")
        return f"{text} or null" if kind_of == "object" and nullable is None else text
    what = "a whole number" if kind_of == "integer" else "a number"
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        return f"{what} above {schema['exclusiveMinimum']:g}, at most {high:g}"
    if high is None:
        return what if low is None else f"{what} of at least {low}"
    return f"{what} from {low} to {high}" if kind_of == "integer" else f"{what} from {low:g} to {high:g}"


def _before(where: str) -> str:
    return f"{where}: " if where else ""


def _begins_with(message: str, name: str) -> bool:
    return message.startswith((name, f"unknown {name}"))
