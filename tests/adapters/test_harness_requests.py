"""What lmms-eval and VLMEvalKit send to an OpenAI-compatible model, against our server: docs/adapters.md says how to run them.

The bodies are written after the harnesses' sources: lmms-eval's model `openai` (chat and simple tasks), VLMEvalKit's class
`GPT4V`. What comes back must be what they read: a string at choices[0].message.content, and usage.
"""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from llada_uni.model import UniModel
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.scheduler.service import Service
from tests.serving.servers import asgi_client, ask, data_uri, scripted, wait_for, words

PATH = "/v1/chat/completions"
QUESTION = "what is at the top left?"
PICTURES = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]


def jpeg_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def lmms_eval(*content: dict) -> dict:
    return {
        "model": "scripted",
        "messages": [{"role": "user", "content": list(content)}],
        "max_tokens": 1024,
        "temperature": 0,
    }


def vlmevalkit(*content: dict, system: str | None = None) -> dict:
    told = [] if system is None else [{"role": "system", "content": system}]
    messages = [*told, {"role": "user", "content": list(content)}]
    return {"model": "scripted", "messages": messages, "n": 1, "temperature": 0, "max_tokens": 2048}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def image(uri: str, **more: str) -> dict:
    return {"type": "image_url", "image_url": {"url": uri, **more}}


BODIES = {
    "lmms-eval, chat task": lmms_eval(image(data_uri(PICTURES[0])), image(data_uri(PICTURES[1])), text(QUESTION)),
    "lmms-eval, simple task: the words come first": lmms_eval(text(QUESTION), image(data_uri(PICTURES[0]))),
    "VLMEvalKit": vlmevalkit(image(jpeg_uri(PICTURES[0]), detail="low"), text(QUESTION)),
    "VLMEvalKit, with a system text": vlmevalkit(
        image(jpeg_uri(PICTURES[0]), detail="high"), text(QUESTION), system="Answer in one word."
    ),
    "VLMEvalKit, no picture": vlmevalkit(text(QUESTION)),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_shape_is_taken_and_answered(name):
    body = BODIES[name]
    service, client = scripted(words)
    answer = ask(client, PATH, json=body)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    assert choice["message"]["content"] == "a cat and a dog" and choice["finish_reason"] == "stop"
    assert set(answer.json()["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}
    request = service.jobs[0].request
    assert request.changes()["text"] == {"max_tokens": body["max_tokens"], "temperature": 0}
    said = request.messages[-1]["content"]
    asked = body["messages"][-1]["content"]
    assert [part for part in said if isinstance(part, str)] == [QUESTION]
    assert [part.size for part in said if not isinstance(part, str)] == [(64, 48)] * sum("image_url" in one for one in asked)


def test_the_answers_are_those_of_the_model_itself():
    uni = UniModel.from_pretrained("world", "cpu")
    picture = uni.generate_image("a cat at the top left and a dog at the bottom right on green", seed=1).image
    service = Service(uni)
    service.start()
    try:
        wait_for(lambda: service.ready, "the model")
        client = asgi_client(create_app(service, ServerOptions(model_name="scripted")))
        for body in (
            lmms_eval(text(QUESTION), image(data_uri(picture))),
            vlmevalkit(image(data_uri(picture), detail="high"), text(QUESTION)),
        ):
            content = ask(client, PATH, json=body).json()["choices"][0]["message"]["content"]
            assert content == uni.understand(picture, QUESTION).text == "cat"
    finally:
        service.close()
