"""/v1/responses: items become turns and tasks, answers become items, streams tell them in OpenAI's order."""

from __future__ import annotations

import base64

import pytest
from PIL import Image

from llada_uni.requests import Chat, Draw, Edit, Story
from llada_uni.results import PartialImage, Progress, TextDelta
from llada_uni.serving.errors import Failed
from llada_uni.serving.http.routes.response_writer import EMPTY
from tests.serving.servers import ask, data_uri, error_of, events_of, finished, opened, picture, png, say, scripted, words

PATH = "/v1/responses"
RED = Image.new("RGB", (4, 4), "red")
CODES = Progress("codes", 1, 2, "", (1, 2), (5, -1), (True, False), (0.9, 0.0))
STORY = say(TextDelta("once"), CODES, PartialImage(0, RED), picture("red"), TextDelta("then"), finished(reason="frames"))
ONE = say(TextDelta("hm", reasoning=True), CODES, picture("red", seed=3), finished(3))
TOOL = {"type": "image_generation"}


def post(script=words, **body):
    service, client = scripted(script)
    return service, ask(client, PATH, json={"input": "hello"} | body)


def events(script, **body):
    response = post(script, stream=True, **body)[1]
    assert response.status_code == 200, response.text
    named = events_of(response.text)
    assert [name for name, _ in named] == [data["type"] for _, data in named]
    assert [data["sequence_number"] for _, data in named] == list(range(len(named)))
    return [data for _, data in named]


def test_text():
    service, response = post(seed=3, instructions="be brief", max_output_tokens=9, temperature=0.5)
    answer = response.json()
    assert answer["object"] == "response" and answer["status"] == "completed" and answer["seed"] == 3
    assert [item["type"] for item in answer["output"]] == ["message"]
    assert answer["output"][0]["content"][0]["text"] == "a cat and a dog" and answer["store"] is False
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (5, 7)
    said = [{"role": "system", "content": ["be brief"]}, {"role": "user", "content": ["hello"]}]
    assert service.requests[0] == Chat(messages=said, modalities=("text",), seed=3, max_tokens=9, temperature=0.5)


def test_items_become_turns():
    drawn = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": base64.b64encode(png(RED)).decode(),
    }
    answer = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
        {"type": "output_text", "text": "here", "annotations": []},
    ]}  # fmt: skip
    asked = {"role": "user", "content": [
        {"type": "input_image", "image_url": data_uri(RED), "detail": "auto"}, {"type": "input_text", "text": "and this?"},
    ]}  # fmt: skip
    thoughts = {"type": "reasoning", "id": "rs_1", "summary": []}
    service, response = post(
        input=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": "draw"},
            thoughts,
            drawn,
            answer,
            asked,
        ]
    )
    assert response.status_code == 200, response.text
    messages = service.requests[0].messages
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "assistant", "user"]
    assert messages[2]["content"][0].getpixel((0, 0)) == (255, 0, 0) and messages[3]["content"] == ["here"]
    assert messages[4]["content"][0].size == (4, 4) and messages[4]["content"][1] == "and this?"


def test_what_was_answered_can_be_sent_back():
    for script, body in ((words, {}), (STORY, {"tools": [TOOL]}), (ONE, {"tools": [TOOL], "tool_choice": "required"})):
        output = post(script, **body)[1].json()["output"]
        again = post(input=[{"role": "user", "content": "x"}, *output, {"role": "user", "content": "y"}])[1]
        assert again.status_code == 200, again.text


def test_text_and_images_in_turn():
    service, response = post(STORY, tools=[TOOL | {"size": "64x32"}], max_tool_calls=2)
    asked = service.requests[0]
    assert isinstance(asked, Story) and (asked.width, asked.height, asked.max_frames) == (64, 32, 2)
    output = response.json()["output"]
    assert [item["type"] for item in output] == ["message", "image_generation_call", "message"]
    assert opened(output[1]["result"]).getpixel((0, 0)) == (255, 0, 0) and response.json()["status"] == "completed"


def test_a_required_image():
    service, response = post(ONE, tools=[TOOL | {"output_format": "jpeg"}], tool_choice="required", thinking=True, seed=3)
    assert service.requests[0] == Draw(prompt="hello", thinking=True, seed=3)
    thoughts, image = response.json()["output"]
    assert thoughts["content"][0]["text"] == "hm" and image["revised_prompt"] == "hello" and image["seed"] == 3
    assert opened(image["result"]).format == "JPEG"


@pytest.mark.parametrize(("action", "kind"), [(None, Edit), ("generate", Draw), ("edit", Edit)])
def test_required_images_change_those_of_the_last_turn(action, kind):
    shown = [{"type": "input_image", "image_url": data_uri(RED)}, {"type": "input_text", "text": "make it blue"}]
    tool = TOOL if action is None else TOOL | {"action": action}
    service, response = post(ONE, input=[{"role": "user", "content": shown}], tools=[tool], tool_choice=TOOL)
    assert response.status_code == 200, response.text
    assert isinstance(service.requests[0], kind)


def test_an_earlier_image_is_changed_where_that_is_asked_for():
    drawn = {"type": "image_generation_call", "result": base64.b64encode(png(RED)).decode()}
    items = [{"role": "user", "content": "a fox"}, drawn, {"role": "user", "content": "on blue"}]
    service, _ = post(ONE, input=items, tools=[TOOL | {"action": "edit"}], tool_choice="required")
    assert isinstance(service.requests[0], Edit) and service.requests[0].images[0].size == (4, 4)
    error = error_of(post(ONE, tools=[TOOL | {"action": "edit"}], tool_choice="required")[1])
    assert error["param"] == "tools[0].action" and "no image in the conversation" in error["message"]


TEXT_EVENTS = [
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    "response.output_text.delta", "response.output_text.delta", "response.output_text.done", "response.content_part.done",
    "response.output_item.done", "response.completed",
]  # fmt: skip


def test_events_of_text():
    told = events(words, seed=1)
    assert [event["type"] for event in told] == TEXT_EVENTS
    assert told[0]["response"]["status"] == "in_progress" and told[0]["response"]["output"] == []
    assert told[2]["item"]["content"] == [] and told[3]["part"]["text"] == ""
    assert "".join(event["delta"] for event in told if event["type"].endswith("text.delta")) == "a cat and a dog"
    assert told[-1]["response"]["output"] == [told[-2]["item"]] and told[-2]["item"]["status"] == "completed"


def test_events_of_an_image():
    told = [event for event in events(STORY, tools=[TOOL | {"partial_images": 1}]) if event.get("output_index") == 1]
    call = "response.image_generation_call"
    assert [event["type"] for event in told] == [
        "response.output_item.added", f"{call}.in_progress", f"{call}.generating", f"{call}.partial_image",
        f"{call}.completed", "response.output_item.done",
    ]  # fmt: skip
    assert opened(told[3]["partial_image_b64"]).size == (4, 4) and told[0]["item"]["result"] is None
    assert opened(told[-1]["item"]["result"]).getpixel((0, 0)) == (255, 0, 0)


def test_the_last_event_is_the_answer_at_once():
    def plain(answer):
        items = [{name: value for name, value in item.items() if name != "id"} for item in answer["output"]]
        return {name: value for name, value in answer.items() if name not in ("id", "created_at", "completed_at")} | {
            "output": items
        }

    body = {"tools": [TOOL], "seed": 1}
    assert plain(events(STORY, **body)[-1]["response"]) == plain(post(STORY, **body)[1].json())


def test_cut_and_empty_answers_say_so():
    cut = post(say(TextDelta("a"), finished(reason="length")))[1].json()
    assert cut["status"] == "incomplete" and cut["incomplete_details"] == {"reason": "max_output_tokens"}
    assert cut["output"][0]["status"] == "incomplete" and cut["notices"] is None
    empty = post(say(finished()))[1].json()
    assert empty["notices"] == [EMPTY] and empty["output"][0]["content"][0]["text"] == ""


def test_a_failure_on_the_way():
    def script(job):
        job.emit(TextDelta("a"))
        raise Failed("the model failed")

    error, failed = events(script)[-2:]
    assert error["type"] == "error" and error["message"] == "the model failed"
    assert failed["response"]["status"] == "failed" and failed["response"]["error"]["code"] == "server_error"


def test_a_failure_before_the_first_event_is_an_http_error():
    def script(job):
        raise Failed("the model failed")

    assert post(script, stream=True)[1].status_code == 500


def said(part):
    return [{"role": "user", "content": [part]}]


REFUSED = [
    ({"input": []}, "input", "at least 1 item"),
    ({"input": 5}, "input", "a string or a list of items"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0]", "must be a message"),
    ({"input": said({"type": "input_audio"})}, "input[0].content[0]", "input_text"),
    ({"input": said({"type": "input_image", "file_id": "f"})}, "input[0].content[0].file_id", "keeps no files"),
    ({"input": said({"type": "input_image"})}, "input[0].content[0].image_url", "is missing"),
    ({"input": [{"role": "assistant", "content": "x"}]}, "input", "a message of the user"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "no other tool"),
    ({"tool_choice": "required"}, "tool_choice", "not among tools"),
    ({"tools": [TOOL | {"partial_images": 1}]}, "tools[0].partial_images", "is for streams"),
    ({"previous_response_id": "resp_1"}, "previous_response_id", "keeps nothing"),
    ({"store": True}, "store", "not stored"),
    ({"background": True}, "background", "not made in the background"),
    ({"truncation": "auto"}, "truncation", "is not supported"),
    ({"cfg_scale": 3.0}, "cfg_scale", "text alone"),
    ({"max_tool_calls": 2}, "max_tool_calls", "add the tool"),
    ({"inputs": 1}, "inputs", "did you mean 'input'?"),
    ({"stop": ""}, "stop", "empty"),
    ({"max_tokens": 4, "max_output_tokens": 5}, "max_tokens", "differ"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param", "sentence"), REFUSED, ids=[f"{row[1]}-{i}" for i, row in enumerate(REFUSED)])
def test_refused_in_words(body, param, sentence):
    service, response = post(**body)
    assert response.status_code == 400 and not service.jobs, response.text
    assert error_of(response)["param"] == param and sentence in error_of(response)["message"]
