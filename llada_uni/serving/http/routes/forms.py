"""An answer in a form: from `response_format`, `regex`, `choice` and `tools` to a grammar, and from its text to calls.

A call is written as {"name": "...", "arguments": {...}}; with `tool_choice` "auto" an answer is such a call, or text that does
not begin with a brace. An answer holds one call at most. What the tools are for stands before the conversation.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from llada_uni.errors import UserError
from llada_uni.generation.grammar.grammar import expression_of
from llada_uni.generation.grammar.scalars import escaped
from llada_uni.serving.http.protocol.chat import ChatRequest, Message
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.protocol.forms import Call, CallDelta, CallText, ChosenFunction, FunctionDescription

BEGINNING, MIDDLE, CLOSING = '{"name": "', '", "arguments": ', "}"
NO_CALL = r"([^{][\s\S]*)?"


def form_of(body: ChatRequest) -> dict[str, Any]:
    """The settings of `requests.Chat` that hold the answer to what the body asks for. ApiError for what cannot be kept."""
    functions = callable_functions(body)
    named = body.response_format.json_schema if body.response_format is not None else None
    asked = {
        "regex": body.regex is not None,
        "choice": body.choice is not None,
        "response_format": body.response_format is not None and body.response_format.type != "text",
        "tools": bool(functions),
    }
    given = [name for name, there in asked.items() if there]
    if len(given) > 1:
        raise ApiError(400, f"{given[0]} and {given[1]} are given; an answer has one form", given[1])
    if given and body.images_wanted:
        raise ApiError(400, f'{given[0]} is for answers in text: set modalities to ["text"]', given[0])
    if given and body.stop:
        raise ApiError(400, f"stop would cut what {given[0]} asks for; give one of the two", "stop")
    if functions:
        calls = "|".join(_call(function) for function in functions)
        return {"regex": calls if must_call(body) else f"{calls}|{NO_CALL}"}
    if asked["choice"]:
        return {"choices": tuple(body.choice or ())}
    if not asked["response_format"]:
        return {}
    assert body.response_format is not None, "it was asked for"
    if body.response_format.type == "json_schema" and named is None:
        raise ApiError(400, 'json_schema is missing: give {"name": ..., "schema": {...}}', "response_format.json_schema")
    schema = {"type": "object"} if named is None or named.schema_ is None else named.schema_
    _expression(schema, "response_format")
    return {"json_schema": schema}


def callable_functions(body: ChatRequest) -> list[FunctionDescription]:
    """The functions that an answer may call. ApiError for a choice of one that is not there."""
    functions = [tool.function for tool in body.tools or ()]
    choice = body.tool_choice
    if isinstance(choice, ChosenFunction):
        functions = [function for function in functions if function.name == choice.function.name]
    if choice not in (None, "none", "auto") and not functions:
        raise ApiError(400, "tool_choice asks for a function that is not among tools", "tool_choice")
    return [] if choice == "none" else functions


def must_call(body: ChatRequest) -> bool:
    return body.tool_choice not in (None, "none", "auto")


def _call(function: FunctionDescription) -> str:
    schema = function.parameters or {"type": "object", "properties": {}, "additionalProperties": False}
    arguments = _expression(schema, "tools")
    return escaped(BEGINNING + function.name + MIDDLE) + arguments + escaped(CLOSING)


def _expression(schema: dict[str, Any], param: str) -> str:
    try:
        return str(expression_of(json_schema=schema))
    except UserError as error:
        raise ApiError(400, str(error), param) from None


# --- messages about tools ---


def told_tools(functions: list[FunctionDescription]) -> list[dict[str, Any]]:
    """A message that says what can be called, where anything can."""
    if not functions:
        return []
    lines = []
    for function in functions:
        names = ", ".join((function.parameters or {}).get("properties") or ())
        lines.append(f"{function.name}({names})" + (f": {function.description.strip()}" if function.description else ""))
    return [{"role": "system", "content": "\n".join(["Functions:", *lines])}]


def call_words(message: Message) -> str:
    """The calls of an earlier answer as the model wrote them."""
    calls = message.tool_calls or ()
    return "".join(f"{BEGINNING}{call.function.name}{MIDDLE}{call.function.arguments}{CLOSING}" for call in calls)


# --- calls in an answer ---


class CallReader:
    """Reads one answer as it comes. `calls`: whether it may be a call; `called`: whether it is one."""

    def __init__(self, calls: bool) -> None:
        self.calls, self.called = calls, False
        self._text, self._sent = "", 0

    def take(self, text: str) -> Iterator[str | CallDelta]:
        """What the next characters add: text, or pieces of a call."""
        self._text += text
        if not self.calls or not self._text.startswith(BEGINNING[0]):
            yield from [text] if text else []
            return
        at = self._text.find(MIDDLE)
        if at < 0:
            return
        if not self.called:
            self.called, self._sent = True, at + len(MIDDLE)
            about = CallText(name=self._text[len(BEGINNING) : at], arguments="")
            yield CallDelta(index=0, id=f"call_{uuid.uuid4().hex[:24]}", type="function", function=about)
        more = self._text[self._sent : len(self._text) - len(CLOSING)]  # the last one may close the call
        if more:
            self._sent += len(more)
            yield CallDelta(index=0, function=CallText(arguments=more))


def read_call(text: str, calls: bool) -> Call | None:
    """The call that a whole answer is, if it is one."""
    reader = CallReader(calls)
    pieces = [piece for piece in reader.take(text) if isinstance(piece, CallDelta)]
    if not reader.called:
        return None
    first = pieces[0]
    arguments = "".join(piece.function.arguments for piece in pieces)
    return Call(id=str(first.id), function=CallText(name=first.function.name, arguments=arguments))
