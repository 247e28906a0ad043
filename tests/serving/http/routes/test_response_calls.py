"""/v1/responses with functions of the client's, and with JSON as the form of an answer."""

from __future__ import annotations

import json

import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from PIL import Image
from pydantic import TypeAdapter

from llada_uni.generation.grammar.expression import automaton_of
from llada_uni.results import TextDelta
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from tests.serving.servers import ScriptedService, ask, data_uri, error_of, events_of, finished, live, say, scripted, words

PATH = "/v1/responses"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "name": "weather", "description": "The weather of a city.", "parameters": SCHEMA, "strict": True}
OTHER = {"type": "function", "name": "stop", "parameters": None}
IMAGES = {"type": "image_generation"}
RED = Image.new("RGB", (4, 4), "red")
CALL = '{"name": "weather", "arguments": {"city": "Bonn"}}'


def pieces(text, size, **end):
    return say(*(TextDelta(text[i : i + size]) for i in range(0, len(text), size)), finished(**end))


def post(script=words, **body):
    service, client = scripted(script)
    return service, ask(client, PATH, json={"input": "how warm is it in Bonn?"} | body)


@pytest.mark.parametrize(
    ("choice", "call", "other", "text"),
    [("auto", True, True, True), (None, True, True, True), ("required", True, True, False),
     ({"type": "function", "name": "weather"}, True, False, False)],
)  # fmt: skip
def test_the_grammar_of_calls(choice, call, other, text):
    service, response = post(tools=[TOOL, OTHER], tool_choice=choice)
    assert response.status_code == 200, response.text
    asked = service.requests[0]
    automaton = automaton_of(asked.regex)
    assert automaton.accepts(CALL.encode()) == call
    assert automaton.accepts(b'{"name": "stop", "arguments": {}}') == other
    assert automaton.accepts(b"it is warm") == text and not automaton.accepts(b"{}")
    assert "weather(city): The weather of a city." in asked.messages[0]["content"]


def test_nothing_is_called_where_nothing_may_be():
    service, _ = post(tools=[TOOL], tool_choice="none")
    assert service.requests[0].regex is None and len(service.requests[0].messages) == 1


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_call_at_once_and_in_a_stream(size):
    body = {"tools": [TOOL], "max_tool_calls": 1, "seed": 3}
    answer = post(pieces(CALL, size), **body)[1].json()
    (item,) = answer["output"]
    assert item["type"] == "function_call" and item["name"] == "weather" and item["status"] == "completed"
    assert json.loads(item["arguments"]) == {"city": "Bonn"} and item["call_id"].startswith("call_")
    assert answer["notices"] is None and answer["status"] == "completed"
    TypeAdapter(Response).validate_python(answer, strict=True)

    events = [data for _, data in events_of(post(pieces(CALL, size), stream=True, **body)[1].text)]
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True)
    kinds = [event["type"] for event in events]
    deltas = [event for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added", *[deltas[0]["type"]] * len(deltas),
        "response.function_call_arguments.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    done = events[kinds.index("response.function_call_arguments.done")]
    assert "".join(event["delta"] for event in deltas) == done["arguments"] == item["arguments"]
    last = events[-1]["response"]
    assert {name: value for name, value in last["output"][0].items() if name not in ("id", "call_id")} == {
        name: value for name, value in item.items() if name not in ("id", "call_id")
    }


def test_text_where_nothing_is_called():
    answer = post(tools=[TOOL])[1].json()
    assert [item["type"] for item in answer["output"]] == ["message"]
    assert answer["output"][0]["content"][0]["text"] == "a cat and a dog"


def test_a_call_that_is_cut_says_so():
    answer = post(pieces(CALL[:-4], 5, reason="length"), tools=[TOOL])[1].json()
    assert answer["status"] == answer["output"][0]["status"] == "incomplete"


def test_calls_and_their_results_can_be_sent_back():
    called = post(pieces(CALL, 9), tools=[TOOL])[1].json()["output"]
    shown = [{"type": "input_text", "text": "20 degrees"}, {"type": "input_image", "image_url": data_uri(RED)}]
    result = {"type": "function_call_output", "call_id": called[0]["call_id"], "output": shown}
    service, response = post(input=[{"role": "user", "content": "how warm?"}, *called, result], tools=[TOOL])
    assert response.status_code == 200, response.text
    _, user, assistant, tool = service.requests[0].messages
    assert (user["role"], assistant["role"], tool["role"]) == ("user", "assistant", "user")
    assert assistant["content"] == [CALL] and tool["content"][0] == "20 degrees" and tool["content"][1].size[0] > 0


@pytest.mark.parametrize(
    ("format", "settings"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}, SCHEMA),
        ({"type": "text"}, None),
    ],
)
def test_json(format, settings):
    service, response = post(text={"format": format})
    assert service.requests[0].json_schema == settings
    assert response.json()["text"]["format"] == format
    TypeAdapter(Response).validate_python(response.json(), strict=True)


REFUSED = [
    ({"tools": [TOOL, IMAGES]}, "tools", "choose it in tool_choice"),
    ({"tools": [IMAGES, IMAGES]}, "tools", "given twice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice", "not among tools"),
    ({"tools": [TOOL], "tool_choice": IMAGES}, "tool_choice", "not among tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice", "must be"),
    ({"tools": [TOOL], "text": {"format": {"type": "json_object"}}}, "tools", "one form"),
    ({"tools": [IMAGES], "text": {"format": {"type": "json_object"}}}, "text.format", "leave the tool image_generation out"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "schema is missing"),
    ({"tools": [TOOL], "stop": "x"}, "stop", "would cut"),
    ({"tools": [TOOL | {"parameters": {"type": "object", "properties": {"a": {"not": {}}}}}]}, "tools", "not"),
    ({"tools": [TOOL | {"name": "a b"}]}, "tools[0].name", "pattern"),
]


@pytest.mark.parametrize(("body", "param", "sentence"), REFUSED, ids=[f"{row[1]}-{i}" for i, row in enumerate(REFUSED)])
def test_refused_in_words(body, param, sentence):
    service, response = post(**body)
    assert response.status_code == 400 and not service.jobs, response.text
    assert error_of(response)["param"] == param and sentence in error_of(response)["message"], response.text


def test_one_of_both_kinds_of_tools_may_be_chosen():
    service, response = post(tools=[TOOL, IMAGES], tool_choice={"type": "function", "name": "weather"})
    assert response.status_code == 200 and service.requests[0].regex is not None
    assert post(tools=[TOOL, IMAGES], tool_choice="none")[1].status_code == 200


def test_openais_client():
    """A call read from a stream, its result sent back, an answer in words."""
    service = ScriptedService(pieces(CALL, 6))
    app = create_app(service, ServerOptions(model_name="scripted"))
    with live(app) as address, OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as openai:
        asked = [{"role": "user", "content": "how warm is it in Bonn?"}]
        with openai.responses.stream(model="scripted", input=asked, tools=[TOOL]) as events:
            kinds = {event.type for event in events}
            answer = events.get_final_response()
        assert "response.function_call_arguments.delta" in kinds
        (call,) = answer.output
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Bonn"})
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "20 degrees"}
        again = openai.responses.create(model="scripted", input=[*asked, *answer.output, result], tools=[TOOL])
        assert again.output[0].type == "function_call" and len(service.requests) == 2
        assert [message["role"] for message in service.requests[1].messages] == ["system", "user", "assistant", "user"]
