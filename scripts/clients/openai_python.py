"""OpenAI's SDK for Python: chat, streams, images, edits and responses."""

import base64
import io

from common import API, PROMPT, QUESTION, case, drawn, is_png, uri
from openai import OpenAI
from structured_output import Person, by_openai

client = OpenAI(base_url=API, api_key="none", max_retries=0, timeout=300)
picture = drawn()
shown = [{"type": "image_url", "image_url": {"url": uri()}}, {"type": "text", "text": QUESTION}]
asked = [{"type": "input_image", "image_url": uri()}, {"type": "input_text", "text": QUESTION}]
TOOL = {"type": "image_generation"}


def streamed_chat():
    with client.chat.completions.stream(model="world", messages=[{"role": "user", "content": shown}]) as stream:
        return "cat" in stream.get_final_completion().choices[0].message.content


def streamed_response():
    with client.responses.stream(model="world", input=[{"role": "user", "content": asked}]) as stream:
        for _ in stream:
            pass
        return "cat" in stream.get_final_response().output_text


def streamed_image():
    events = list(client.images.generate(prompt=PROMPT, stream=True, partial_images=1))
    return events[-1].type == "image_generation.completed" and is_png(events[-1].b64_json)


case("chat", lambda: client.chat.completions.create(model="world", messages=[{"role": "user", "content": "hello"}]).usage)
case("image in", lambda: "cat" in client.chat.completions.create(
    model="world", messages=[{"role": "user", "content": shown}]).choices[0].message.content)  # fmt: skip
case("stream", streamed_chat)
case("draw", lambda: is_png(client.images.generate(prompt=PROMPT).data[0].b64_json))
case("draw in a stream", streamed_image)


def edited():
    file = ("a.png", io.BytesIO(base64.b64decode(picture)), "image/png")
    return is_png(client.images.edit(image=file, prompt="replace the cat with a fox").data[0].b64_json)


case("edit", edited)
case("responses", lambda: "cat" in client.responses.create(
    model="world", input=[{"role": "user", "content": asked}]).output_text)  # fmt: skip
case("responses in a stream", streamed_response)
case("responses with an image", lambda: is_png(client.responses.create(
    model="world", input=PROMPT, tools=[TOOL], tool_choice="required").output[-1].result))  # fmt: skip
case("models", lambda: [model.id for model in client.models.list()] == ["world"])
case("examples/structured_output.py", lambda: by_openai(API, "world") is None)
NOTE = {"type": "function", "name": "note", "parameters": Person.model_json_schema(), "strict": False}


def called_by_responses():
    asked = {"model": "world", "input": "who is it?", "tools": [NOTE], "tool_choice": "required"}
    with client.responses.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        (call,) = stream.get_final_response().output
    return Person.model_validate_json(call.arguments) and "response.function_call_arguments.delta" in kinds


case("a function by responses", called_by_responses)
case("responses parsed", lambda: client.responses.parse(
    model="world", input="who is it?", text_format=Person).output_parsed)  # fmt: skip
