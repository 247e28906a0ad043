"""The lenient mode: what a request may do without is left out of it, and the answer says so.

A body that was refused, with the faults found in it -> the same body without the unknown and unsupported fields, and a
warning for each. A field whose value is wrong stays an error: leaving it out would answer another question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llada_uni.serving.http.protocol.common import NotSupported
from llada_uni.serving.http.protocol.errors import path_of

MOST_ROUNDS = 8  # of checking again: a field may hide the faults of others


def without_faults(value: Any, errors: Sequence[Mapping[str, Any]], main: str) -> list[str]:
    """Takes out of `value`, a body, what can be left out; returns a warning for each, none where anything else is wrong.

    main: the field that says what is asked for; what is not supported inside it is taken out alone, elsewhere the whole
    field goes.
    """
    steps_of = [[step for step in error["loc"] if step != "body" and not str(step).startswith("<")] for error in errors]
    kinds = [_kind(error) for error in errors]
    if not steps_of or None in kinds:
        return []
    warnings = []
    for steps, kind in sorted(zip(steps_of, kinds, strict=True), key=lambda one: str(one[0]), reverse=True):
        place = steps if kind == "unknown" or steps[0] == main else steps[:1]
        if _take_out(value, place):
            warnings.append(f"{path_of(place)} is {kind} here and was left out")
    return warnings[::-1]


def _kind(error: Mapping[str, Any]) -> str | None:
    """ "unknown" or "not supported"; None for a fault that is no such thing."""
    if error["type"] == "extra_forbidden":
        return "unknown"
    inside = error.get("ctx", {}).get("error")
    return "not supported" if isinstance(inside, NotSupported) or error["type"] == "tool" else None


def _take_out(value: Any, steps: Sequence[Any]) -> bool:
    """Whether something was at the place."""
    for step in steps[:-1]:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return False
    try:
        del value[steps[-1]]
    except (KeyError, IndexError, TypeError):
        return False
    return True
