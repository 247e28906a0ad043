"""An answer in a form: from `response_format`, `text.format`, `regex`, `choice` and `tools` to a grammar, and from its text to
calls.

A call is written as {"name": "...", "arguments": {...}}; with `tool_choice` "auto" an answer is such a call, or text that does
not begin with a brace. An answer holds one call at most. What the tools are for stands before the conversation.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from llada_uni.errors import UserError
from llada_uni.generation.grammar.grammar import expression_of
from llada_uni.generation.grammar.scalars import escaped
from llada_uni.serving.http.protocol.chat import ChatRequest, Message
from llada_uni.serving.http.protocol.errors import ApiError
from llada_uni.serving.http.protocol.forms import Call, CallDelta, CallText, ChosenFunction, FunctionDescription
from llada_uni.serving.http.protocol.responses import ResponsesRequest

BEGINNING, MIDDLE, CLOSING = '{"name": "', '", "arguments": ', "}"
NO_CALL = r"([^{][\s\S]*)?"


def form_of(body: ChatRequest) -> dict[str, Any]:
    """The settings of `requests.Chat` that hold the answer to what the body asks for. ApiError for what cannot be kept."""
    functions = callable_functions(body)
    asked = {
        "regex": body.regex is not None,
        "choice": body.choice is not None,
        "response_format": body.response_format is not None and body.response_format.type != "text",
        "tools": bool(functions),
    }
    _check_one(asked, body.stop, 'set modalities to ["text"]' if body.images_wanted else None)
    if functions:
        return calls_form(functions, must_call(body))
    if asked["choice"]:
        return {"choices": tuple(body.choice or ())}
    if not asked["response_format"]:
        return {}
    assert body.response_format is not None, "it was asked for"
    named = body.response_format.json_schema
    if body.response_format.type == "json_schema" and named is None:
        raise ApiError(400, 'json_schema is missing: give {"name": ..., "schema": {...}}', "response_format.json_schema")
    return _json_form(None if named is None else named.schema_, "response_format")


def form_of_response(body: ResponsesRequest) -> dict[str, Any]:
    """The same for /v1/responses."""
    functions, form = body.functions, body.form
    asked = {"regex": body.regex is not None, "text.format": form is not None, "tools": bool(functions)}
    _check_one(asked, body.stop, "leave the tool image_generation out" if body.tool is not None else None)
    if functions:
        return calls_form(functions, body.must_call)
    return {} if form is None else _json_form(form.schema_, "text.format")


def _check_one(asked: dict[str, bool], stop: Any, without_images: str | None) -> None:
    """ApiError for two forms, and for one where the answer may hold images (without_images: how to ask for none)."""
    given = [name for name, there in asked.items() if there]
    if len(given) > 1:
        raise ApiError(400, f"{given[0]} and {given[1]} are given; an answer has one form", given[1])
    if given and without_images:
        raise ApiError(400, f"{given[0]} is for answers in text: {without_images}", given[0])
    if given and stop:
        raise ApiError(400, f"stop would cut what {given[0]} asks for; give one of the two", "stop")


def _json_form(schema: dict[str, Any] | None, param: str) -> dict[str, Any]:
    chosen = {"type": "object"} if schema is None else schema
    _expression(chosen, param)
    return {"json_schema": chosen}


def calls_form(functions: Sequence[FunctionDescription], must: bool) -> dict[str, Any]:
    """Calls of functions, or (unless it must be one) text that does not begin like a call."""
    calls = "|".join(_call(function) for function in functions)
    return {"regex": calls if must else f"{calls}|{NO_CALL}"}


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


def told_tools(functions: Sequence[FunctionDescription]) -> list[dict[str, Any]]:
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
    return "".join(words_of_call(call.function.name, call.function.arguments) for call in message.tool_calls or ())


def words_of_call(name: str, arguments: str) -> str:
    """A call as the model writes it. arguments: JSON as text."""
    return f"{BEGINNING}{name}{MIDDLE}{arguments}{CLOSING}"


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
