"""Chats whose answers have a form: what is asked of the model, how calls are read out of its text, and what is refused."""

from __future__ import annotations

import json

import pytest

from llada_uni.generation.grammar.expression import automaton_of
from llada_uni.results import TextDelta
from llada_uni.serving.http.protocol.forms import CallDelta
from llada_uni.serving.http.routes.forms import CallReader
from tests.serving.servers import ask, error_of, events_of, finished, say, scripted, words

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "how warm is it in Bonn?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "stop"}}
CALL = '{"name": "weather", "arguments": {"city": "Bonn"}}'


def post(script=words, **body):
    service, client = scripted(script)
    return service, ask(client, PATH, json={"messages": HELLO} | body)


def pieces(text, size):
    return say(*(TextDelta(text[i : i + size]) for i in range(0, len(text), size)), finished())


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        ({"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}},
         {"json_schema": SCHEMA}),
        ({"response_format": {"type": "text"}}, {}),
        ({"regex": "[a-z]+"}, {"regex": "[a-z]+"}),
        ({"choice": ["yes", "no"]}, {"choices": ("yes", "no")}),
        ({"tools": [TOOL], "tool_choice": "none"}, {}),
    ],
)  # fmt: skip
def test_what_is_asked_of_the_model(body, settings):
    service, response = post(**body)
    assert response.status_code == 200, response.text
    asked = service.requests[0]
    given = {name: getattr(asked, name) for name in ("regex", "json_schema", "choices")}
    assert {name: value for name, value in given.items() if value is not None} == settings


@pytest.mark.parametrize(
    ("choice", "call", "other", "text"),
    [("auto", True, True, True), (None, True, True, True), ("required", True, True, False),
     ({"type": "function", "function": {"name": "weather"}}, True, False, False)],
)  # fmt: skip
def test_the_grammar_of_calls(choice, call, other, text):
    service, _ = post(tools=[TOOL, OTHER], tool_choice=choice)
    asked = service.requests[0]
    automaton = automaton_of(asked.regex)
    assert automaton.accepts(CALL.encode()) == call
    assert automaton.accepts(b'{"name": "stop", "arguments": {}}') == other
    assert automaton.accepts("it is warm, {5} é".encode()) == text
    assert not automaton.accepts(b'{"name": "weather", "arguments": {}}') and not automaton.accepts(b"{}")
    told = asked.messages[0]
    assert told["role"] == "system" and "weather(city): The weather of a city." in told["content"]


def test_a_call_at_once():
    _, response = post(pieces(CALL, 7), tools=[TOOL])
    choice = response.json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Bonn"}'} and call["id"].startswith("call_")


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_call_in_a_stream(size):
    _, response = post(pieces(CALL, size), tools=[TOOL], stream=True)
    chunks = [data for _, data in events_of(response.text) if data != "[DONE]"]
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls") or ()]
    assert deltas[0]["function"]["name"] == "weather" and deltas[0]["id"] and deltas[0]["type"] == "function"
    assert json.loads("".join(delta["function"]["arguments"] for delta in deltas)) == {"city": "Bonn"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(chunk["choices"][0]["delta"].get("content") for chunk in chunks)


def test_text_where_nothing_is_called():
    _, response = post(tools=[TOOL])
    choice = response.json()["choices"][0]
    assert choice["message"]["content"] == "a cat and a dog" and choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]
    assert list(CallReader(True).take("it is {5}")) == ["it is {5}"] and not list(CallReader(True).take(""))
    assert all(isinstance(piece, str) for piece in CallReader(False).take(CALL))


def test_calls_and_their_results_can_be_sent_back():
    function = {"name": "weather", "arguments": '{"city": "Bonn"}'}
    before = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "20 degrees"},
    ]
    service, response = post(messages=before, tools=[TOOL])
    assert response.status_code == 200, response.text
    assert [(m["role"], "".join(m["content"])) for m in service.requests[0].messages[2:]] == [
        ("assistant", CALL), ("user", "20 degrees"),
    ]  # fmt: skip


def test_pieces_of_a_call_have_ids_once():
    reader = CallReader(True)
    found = [piece for letter in CALL for piece in reader.take(letter)]
    assert [isinstance(piece, CallDelta) and piece.id is not None for piece in found] == [True] + [False] * (len(found) - 1)


@pytest.mark.parametrize(
    ("body", "param", "sentence"),
    [
        ({"regex": "a", "choice": ["b"]}, "choice", "regex and choice are given; an answer has one form"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "tools", "an answer has one form"),
        ({"regex": "a", "stop": "b"}, "stop", "stop would cut what regex asks for"),
        ({"regex": "a", "modalities": ["text", "image"]}, "regex", "is for answers in text"),
        ({"choice": []}, "choice", "at least 1 item"),
        ({"tool_choice": "required"}, "tool_choice", "a function that is not among tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "not among tools"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice", "'none', 'auto' or 'required'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "json_schema is missing"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
         "response_format", "the keyword 'not' is not supported"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
    ],
)  # fmt: skip
def test_what_is_refused(body, param, sentence):
    service, response = post(**body)
    assert response.status_code == 400 and not service.requests
    error = error_of(response)
    assert error["param"] == param and sentence in error["message"], error
