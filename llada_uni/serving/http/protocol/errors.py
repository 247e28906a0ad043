"""Errors as OpenAI writes them: {"error": {"message", "type", "param", "code"}}, each message one sentence for a person.

Exceptions, and pydantic's lists of what is wrong with a body -> `ApiError` -> `ErrorBody`. A message
names the field and what is allowed, and repeats of a request no more than a short value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from llada_uni.errors import UserError

LONGEST_ECHO = 60  # characters of a wrong value or name that a message repeats


class ApiError(Exception):
    """A request that is refused. status: of the HTTP answer; param: the field at fault; code: for programs."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is no result."""

    error: ErrorDetail


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> ErrorBody:
    """OpenAI's form of an error."""
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))


def describe(errors: Sequence[Mapping[str, Any]], body: type[BaseModel]) -> ApiError:
    """What pydantic found wrong with a body, in one sentence; of several faults the first.

    An unknown field that looks like a known one, or that an earlier version knew, is told the right name.
    """
    error = errors[0]
    # "<...>" marks which type of a union was tried: no part of the way to the field.
    steps = [step for step in error["loc"] if step != "body" and not str(step).startswith("<")]
    path = path_of(steps)
    if not path:
        return ApiError(400, "the body must be a JSON object with the fields of this route")
    if error["type"] == "extra_forbidden":
        renamed = getattr(body, "renamed", {}).get(path)
        if renamed is not None:
            return ApiError(400, f"{path} is no field any more: use {renamed}", path, "unknown_parameter")
        near = get_close_matches(str(steps[-1]), list(body.model_fields), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return ApiError(400, f"unknown field {path!r}{hint}", path, "unknown_parameter")
    inside = error.get("ctx", {}).get("error")
    if isinstance(inside, UserError):  # of a group of settings, which names its own field
        name = re.match(r"(\w+) must be ", str(inside))
        return ApiError(400, f"{path}.{inside}" if name else f"{path}: {inside}", f"{path}.{name[1]}" if name else path)
    return ApiError(400, f"{path} {_verdict(error)}", path)


def path_of(steps: Sequence[str | int]) -> str:
    """A field as a person writes it, messages[0].content."""
    return _short("".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix("."))


# Words of a program -> words of a person.
_NAMES = {"integer": " a whole number", "dictionary": " an object"}
_WORDINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r" after validation|, unable to (parse|interpret) .*$", ""),
    (r"^Field required$", "is missing"),
    (r"^Value error, ", ""),
    (r"^(Input|String|List|Dictionary|Value) should ", "must "),
    (r" a valid (integer|dictionary)( or instance of \w+)?$", lambda match: _NAMES[match[1]]),
    (r" a valid (?=string|list|number|boolean)", " a "),
)


def _verdict(error: Mapping[str, Any]) -> str:
    text = str(error["msg"])
    for pattern, words in _WORDINGS:
        text = re.sub(pattern, words, text)
    value = error.get("input")
    tells_value = error["type"] in ("missing", "value_error") or ", not " in text
    if tells_value or not isinstance(value, str | int | float | None):
        return text
    return f"{text}, not {_short(json.dumps(value))}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_ECHO else f"{text[:LONGEST_ECHO]}..."
