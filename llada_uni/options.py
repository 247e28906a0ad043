"""Options of a recipe: dataclasses whose values are checked as they are made, from Python and from YAML alike.

    @options
    class LoopOptions:
        steps: AtLeastOne = 1000
        schedule: Literal["constant", "wsd"] = "constant"

    LoopOptions(steps=0)          # UserError: steps is 0; allowed: at least 1

pydantic checks types and bounds and converts ("2e-3" -> 0.002, lists to tuples, mappings to options inside); the first mistake
becomes a `UserError` of one line: which key, what was given, what is allowed, and for an unknown key the nearest known one.
Settings of a generation are `llada_uni.checked.Checked` instead: frozen, and strict about types, because programs send them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar, dataclass_transform

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass, is_pydantic_dataclass
from pydantic.fields import FieldInfo

from llada_uni.errors import UserError

T = TypeVar("T")
AtLeastOne = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
_BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "less than")}


@dataclass_transform(field_specifiers=(dataclasses.field, Field))
def options(kind: type[T]) -> type[T]:
    """The class as a dataclass whose constructor checks: UserError for what `from_plain` refuses."""
    made: Any = dataclass(config=_CONFIG)(kind)
    construct: Callable[..., None] = made.__init__

    @functools.wraps(construct)
    def init(self: Any, *positional: Any, **named: Any) -> None:
        try:
            construct(self, *positional, **named)
        except ValidationError as error:
            raise UserError(explain(error, made, "")) from None

    made.__init__ = init
    return made


def from_plain(kind: type[T], value: Any, where: str) -> T:
    """`value` (what YAML gives) as `kind`: a class made by `options`, for which None stands for no values, or a plain type.

    where: the key of `value`, for messages. UserError for an unknown or missing name, a wrong type, a value out of range.
    """
    if dataclasses.is_dataclass(kind):
        if not is_pydantic_dataclass(kind):
            raise TypeError(f"{kind.__name__} must be made by @options (llada_uni.options), so that unknown keys are errors")
        value = {} if value is None else value
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise UserError(explain(error, kind, where)) from None


def to_plain(section: Any) -> dict[str, Any]:
    """Options as plain values that YAML and JSON can hold; `from_plain` of them gives equal ones."""
    return TypeAdapter(type(section)).dump_python(section, mode="json")


def explain(error: ValidationError, kind: Any, where: str) -> str:
    """The first thing that is wrong, as one line. kind: what was to be made; where: its key, "" for a constructor's call."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if path and isinstance(first["loc"][0], int) and dataclasses.is_dataclass(kind):
        path[0] = dataclasses.fields(kind)[first["loc"][0]].name  # a positional argument
    key = ".".join([*filter(None, [where]), *path])
    holder, field = _holder(kind, path)
    if first["type"] == "unexpected_keyword_argument":
        return unknown_key(key, [f.name for f in dataclasses.fields(holder)])
    if first["type"] in ("missing", "missing_argument"):
        return f"{key} is missing"
    if first["type"] == "value_error":  # raised by the options themselves, which say what is allowed
        message = str(first["ctx"]["error"])
        return message if not key or message.startswith(key) else f"{key}: {message}"
    given = f"{key or 'the value'} is {first['input']!r}"
    if first["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return f"{given}; allowed: {', '.join(words)}"
    if first["type"] == "dataclass_type":
        inner = _options_in(field) if path else kind
        return f"{given}; allowed: the keys {', '.join(f.name for f in dataclasses.fields(inner))}"
    if first["type"].startswith(("greater_than", "less_than")):
        return f"{given}; allowed: {_bounds(field)}"
    return f"{given}; {first['msg'].removeprefix('Input ')}"


def unknown_key(key: str, allowed: Sequence[str]) -> str:
    """The line for a key that is not known: where it is now (MOVED), or the nearest that is known; and all that are."""
    near = difflib.get_close_matches(key.rpartition(".")[2], allowed, n=1)
    hint = MOVED.get(key) or (f"did you mean {near[0]}?" if near else "")
    return f"unknown key {key}{f' ({hint})' if hint else ''}; allowed: {', '.join(allowed)}"


MOVED = {
    "options.rarity": "it is called options.frequency_weighting now",
    "options.places": "it is called options.position_probes now",
    "options.reader": "it is called options.probe_lm now",
    "options.slots": "loop.micro_batches says it: leave it out",
    "options.named_codes": "the stage world_backbone has it",
    "options.lookups": "the stage world_backbone has it",
}
"""Keys of recipes of earlier versions, and where they are now."""


def describe(kind: type, where: str) -> Iterator[str]:
    """One line a field of options: its key, type and default."""
    for f in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[f.name]
        nested = _options_in(hint)
        name = re.sub(r"[\w.]+\.", "", str(hint)) if typing.get_origin(hint) else hint.__name__
        yield f"{where}.{f.name}: {name}{_default(f)}"
        if nested is not None:
            yield from describe(nested, f"{where}.{f.name}")


def _default(f: dataclasses.Field[Any]) -> str:
    if f.default is not dataclasses.MISSING:
        return f" = {f.default!r}"
    if f.default_factory is not dataclasses.MISSING:
        return f" = {f.default_factory()!r}"
    return " (must be given)"


def _holder(kind: Any, path: Sequence[str]) -> tuple[Any, Any]:
    """The options in which the last name of `path` is (or is not), and that field's type with its bounds."""
    field: Any = kind
    for name in path:
        inner = _options_in(field)
        if inner is None:
            break
        kind, field = inner, typing.get_type_hints(inner, include_extras=True).get(name)
    return kind, field


def _options_in(hint: Any) -> Any:
    """The options class in `Some`, `Some | None`; None for any other type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        found = [inner for inner in typing.get_args(hint) if dataclasses.is_dataclass(inner)]
        return found[0] if len(found) == 1 else None
    return hint if dataclasses.is_dataclass(hint) else None


def _bounds(hint: Any) -> str:
    """The bounds of an annotated number, in words."""
    options_of = (hint, *typing.get_args(hint)) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    found: dict[type, float] = {}
    for one in options_of:
        for extra in getattr(one, "__metadata__", ()):
            for bound in extra.metadata if isinstance(extra, FieldInfo) else (extra,):
                if type(bound) in _BOUNDS:
                    found[type(bound)] = getattr(bound, _BOUNDS[type(bound)][0])
    if set(found) == {Ge, Le}:
        return f"{found[Ge]:g} to {found[Le]:g}"
    return " and ".join(f"{_BOUNDS[bound][1]} {value:g}" for bound, value in found.items())
