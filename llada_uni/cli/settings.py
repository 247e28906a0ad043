"""The settings of a request as options of a command: name, type, help, bounds and heading, all from the record.

A command takes `settings: Annotated[dict, Settings(Draw)]`; `groups.with_groups` puts an option for each setting in its place
and gives the command those that were given, as keywords for the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from llada_uni.checked import allowed, schema_of
from llada_uni.files.configs import read_text
from llada_uni.requests import Request

WIDE = 2**20  # a bound from here on only keeps a slip from taking all memory: no news for the help
TYPES: dict[str, type] = {"integer": int, "number": float, "boolean": bool, "string": str, "object": str}


@dataclass(frozen=True)
class Settings:
    """Stands in the annotation of a parameter: the settings of requests of this kind, but for `left_out`."""

    kind: type[Request]
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All but those left out, heading by heading."""
        return [name for name in self.kind.settings() if name not in self.left_out]

    def options(self) -> list[tuple[str, Any, Any]]:
        """(name, type as typer wants it, default) of each option."""
        return [(name, *self._option(name)) for name in self.names]

    def read(self, given: dict[str, Any]) -> dict[str, Any]:
        """What was given, as keywords for the record."""
        found = {name: value for name, value in given.items() if value is not None and value is not False and value != []}
        schema = found.get("json_schema")
        if isinstance(schema, str) and schema.startswith("@"):
            found["json_schema"] = read_text(Path(schema[1:]))
        return found

    def _option(self, name: str) -> tuple[Any, Any]:
        schema, flag = schema_of(self.kind, name), f"--{name.replace('_', '-')}"
        kind = schema.get("type", "string")
        text = _help(self.kind, name)
        if kind == "boolean":
            return Annotated[bool, typer.Option(flag, help=text, rich_help_panel=self.kind.panels[name])], False
        option = typer.Option(flag, help=text, rich_help_panel=self.kind.panels[name])
        if kind == "array":
            return Annotated[Optional[list[str]], option], None  # noqa: UP045
        return Annotated[Optional[TYPES[kind]], option], None  # noqa: UP045


def _help(kind: type[Request], name: str) -> str:
    """The line of help, with what is allowed."""
    schema, text = schema_of(kind, name), (kind.model_fields[name].description or "").removesuffix(".")
    if "enum" in schema and not all(str(word) in text for word in schema["enum"]):
        more = ", ".join(map(str, schema["enum"]))
    elif schema.get("type") == "array":
        more = "may be repeated"
    elif name == "json_schema":
        more = "JSON, or @FILE"
    elif schema.get("type") == "object":
        more = ",".join(f"{inner}=..." for inner in schema["properties"])
    elif schema.get("maximum", WIDE) < WIDE:
        more = allowed(kind, name).removeprefix("a whole number ").removeprefix("a number ").removeprefix("from ")
    else:
        return f"{text}."
    return f"{text.removesuffix(')')}; {more})" if text.endswith(")") else f"{text} ({more})"
