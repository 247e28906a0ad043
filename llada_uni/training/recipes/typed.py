"""Dataclasses from plain data, with errors a person can act on, and back.

What flows through: what YAML gave (dicts, lists, numbers, words) -> an instance of a dataclass, every name and type checked.
pydantic checks types and converts ("2e-3" -> 0.002); unknown names, which it would let pass, are checked here.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llada_uni.errors import UserError


def typed(kind: type, value: Any, where: str) -> Any:
    """`value` as an instance of `kind`; for a dataclass None stands for a section that is left out.

    where: the key of `value`, for messages. UserError for an unknown or missing name, a wrong type, a value out of range.
    """
    if dataclasses.is_dataclass(kind):
        value = {} if value is None else value
        _check_nested(kind, value, where)
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *(str(part) for part in first["loc"])])
        if first["type"] == "missing":
            raise UserError(f"the recipe lacks {key}") from None
        if first["type"] == "value_error":  # raised by the dataclass itself, which says what is allowed
            message = str(first["ctx"]["error"])
            raise UserError(message if message.startswith(key) else f"{key}: {message}") from None
        raise UserError(f"{key} is {first['input']!r}; {first['msg'].removeprefix('Input ')}") from None


def _check_nested(kind: type, data: Any, where: str) -> None:
    """UserError for a key of `data` that the dataclass `kind`, or one inside it, does not know."""
    if not isinstance(data, Mapping):
        raise UserError(f"{where} is {data!r}; allowed: the keys {', '.join(f.name for f in dataclasses.fields(kind))}")
    inner = _field_types(kind)
    check_names(data, list(inner), where)
    for name, value in data.items():
        nested = _dataclass_of(inner[name])
        if nested is not None and isinstance(value, Mapping):
            _check_nested(nested, value, f"{where}.{name}")


MOVED = {
    "options.rarity": "it is called options.frequency_weighting now",
    "options.places": "it is called options.position_probes now",
    "options.slots": "loop.micro_batches says it: leave it out",
    "options.named_codes": "the stage world_backbone has it",
    "options.lookups": "the stage world_backbone has it",
}
"""Keys of older recipes, and where they are now."""


def check_names(data: Mapping[str, Any], allowed: list[str], where: str) -> None:
    """UserError for a key that is not allowed, with the nearest one that is."""
    for name in data:
        if name not in allowed:
            key = f"{where}.{name}" if where else str(name)
            near = difflib.get_close_matches(str(name), allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            if key in MOVED:
                hint = f" ({MOVED[key]})"
            raise UserError(f"unknown key {key}{hint}; allowed: {', '.join(allowed)}")


def _field_types(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _dataclass_of(hint: Any) -> type | None:
    """The dataclass in `Some`, `Some | None`; None for any other type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        found = [inner for inner in typing.get_args(hint) if dataclasses.is_dataclass(inner)]
        return found[0] if len(found) == 1 else None
    return hint if dataclasses.is_dataclass(hint) else None


def plain(section: Any) -> dict[str, Any]:
    """A dataclass as plain values that YAML and JSON can hold; `typed` of them gives an equal dataclass."""
    return TypeAdapter(type(section)).dump_python(section, mode="json")


def describe(kind: type, where: str) -> Iterator[str]:
    """One line a field: its key, type and default."""
    for f in dataclasses.fields(kind):
        if not f.init:
            continue
        hint = _field_types(kind)[f.name]
        nested = _dataclass_of(hint)
        name = re.sub(r"[\w.]+\.", "", str(hint)) if typing.get_origin(hint) else hint.__name__
        yield f"{where}.{f.name}: {name}{_default(f)}"
        if nested is not None:
            yield from describe(nested, f"{where}.{f.name}")


def _default(f: dataclasses.Field) -> str:
    if f.default is not dataclasses.MISSING:
        return f" = {f.default!r}"
    if f.default_factory is not dataclasses.MISSING:
        return f" = {f.default_factory()!r}"
    return " (must be given)"
