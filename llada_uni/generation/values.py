"""Types of settings that a bound alone does not describe: words out of a list, stop strings, choices, a schema, a question.

`params.py` has the settings that use them, with defaults and help.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import core_schema

from llada_uni.errors import UserError

MODALITIES = ("text", "image")
MOST_STOPS = 16
MOST_CHOICES = 1000
LONGEST_QUESTION = 500  # characters of the question by which candidates are judged


@dataclass(frozen=True)
class OneOf:
    """Metadata of a field: these words, and no others."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.literal_schema(list(self.names))


def _stops(value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else () if value is None else value
    listed = isinstance(found, list | tuple) and len(found) <= MOST_STOPS
    if not listed or not all(isinstance(text, str) and text for text in found):
        raise UserError(f"stop must hold at most {MOST_STOPS} strings, none of them empty")
    return tuple(found)


def _choices(value: Any) -> tuple[str, ...]:
    listed = isinstance(value, list | tuple) and 0 < len(value) <= MOST_CHOICES
    if not listed or not all(isinstance(text, str) and text for text in value):
        raise UserError(f"choices must hold 1 to {MOST_CHOICES} strings, none of them empty")
    return tuple(value)


def _json_schema(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"json_schema is no JSON: {error}") from None
    if not isinstance(value, dict | bool):
        raise UserError(f"json_schema must be a JSON schema (an object), not {value!r}"[:200])
    return value


def _modalities(value: Any) -> tuple[str, ...]:
    wanted = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if "text" not in wanted or not set(wanted) <= set(MODALITIES):
        raise UserError(f"modalities must be ('text',) or ('text', 'image'), not {value!r}")
    return wanted


def _with_prompt(value: str) -> str:
    if "{prompt}" not in value or len(value) > LONGEST_QUESTION:
        allowed = f"a question of at most {LONGEST_QUESTION} characters with {{prompt}} in it"
        raise ValueError(f"judge_question is {value[:LONGEST_QUESTION]!r}; allowed: {allowed}")
    return value


Stops = Annotated[tuple[str, ...], BeforeValidator(_stops)]
Choices = Annotated[tuple[str, ...], BeforeValidator(_choices)]
JsonSchema = Annotated[Any, BeforeValidator(_json_schema), Field(json_schema_extra={"type": "object"})]
Modalities = Annotated[tuple[str, ...], BeforeValidator(_modalities)]
Question = Annotated[str, AfterValidator(_with_prompt)]
