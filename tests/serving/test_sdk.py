"""The contract: OpenAI's own SDK against a real server with the shipped model, written as a new user would write it."""

from __future__ import annotations

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI
from PIL import Image

from llada_uni.model import UniModel
from llada_uni.results import TextDelta
from llada_uni.serving.errors import Failed
from llada_uni.serving.http.app import create_app
from llada_uni.serving.http.options import ServerOptions
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.scheduler.service import Service
from tests.serving.servers import PATIENCE, ScriptedService, data_uri, live, opened, png, until_cancelled, wait_for

KEY = "a-key-for-tests"
CAT = "a cat and a dog on green"


@pytest.fixture(scope="module")
def uni():
    return UniModel.from_pretrained("world", "cpu")


@pytest.fixture(scope="module")
def base(uni):
    service = Service(uni, Limits(max_n=4))
    service.start()
    try:
        wait_for(lambda: service.ready, "the model")
        with live(create_app(service, ServerOptions(api_keys=(KEY,), model_name="world"))) as address:
            yield address
    finally:
        service.close()


@pytest.fixture(scope="module")
def client(base):
    return OpenAI(base_url=f"{base}/v1", api_key=KEY, timeout=PATIENCE, max_retries=0)


@pytest.fixture(scope="module")
def drawn(uni):
    """What the model draws without a server."""
    return uni.generate_image(CAT, seed=5)


def picture_part(image):
    return {"type": "image_url", "image_url": {"url": data_uri(image)}}


def about(image, question):
    return {"role": "user", "content": [picture_part(image), {"type": "text", "text": question}]}


def test_models(client):
    assert [model.id for model in client.models.list()] == ["world"]
    assert client.models.retrieve("world").id == "world"


# --- chat ---


def test_chat_about_a_picture(client, uni, drawn):
    question = "what is at the top left?"
    answer = client.chat.completions.create(model="world", messages=[about(drawn.image, question)], seed=1)
    message = answer.choices[0].message
    assert message.content == uni.understand(drawn.image, question, seed=1).text and message.content
    assert message.role == "assistant" and answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 16 and answer.seed == 1


def test_streamed_chat_says_the_same(client, drawn):
    messages = [about(drawn.image, "describe the picture")]
    whole = client.chat.completions.create(model="world", messages=messages, seed=1)
    stream = client.chat.completions.create(
        model="world", messages=messages, seed=1, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage


def test_several_turns(client, uni, drawn):
    messages = [about(drawn.image, "what is at the top left?")]
    first = client.chat.completions.create(model="world", messages=messages, seed=1)
    messages += [first.choices[0].message, {"role": "user", "content": "what is the background?"}]
    second = client.chat.completions.create(model="world", messages=messages, seed=1)
    turns = [
        {"role": "user", "content": [drawn.image, "what is at the top left?"]},
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "what is the background?"},
    ]
    assert second.choices[0].message.content == uni.chat(turns, seed=1, modalities=("text",)).text
    assert first.choices[0].message.content and second.usage.prompt_tokens > first.usage.prompt_tokens


def test_several_pictures_and_a_system_message(client, uni, drawn):
    other = opened(client.images.generate(model="world", prompt="a rocket on blue", extra_body={"seed": 3}).data[0].b64_json)
    question = {"type": "text", "text": "how many things are there?"}
    messages = [
        {"role": "system", "content": "Answer in few words."},
        {"role": "user", "content": [picture_part(drawn.image), picture_part(other), question]},
    ]
    answer = client.chat.completions.create(model="world", messages=messages, seed=1)
    turns = [messages[0], {"role": "user", "content": [drawn.image, other, question["text"]]}]
    assert answer.choices[0].message.content == uni.chat(turns, seed=1, modalities=("text",)).text
    assert answer.choices[0].message.content


def test_our_settings_through_extra_body(client, drawn):
    settings = {"text_steps": 4, "threshold": 0.5, "block_length": 16, "sprint": {"r_text": 1.0, "r_img": 0.8}}
    answer = client.chat.completions.create(
        model="world", messages=[about(drawn.image, "what is this?")], n=2, stop=["."], max_tokens=24, extra_body=settings
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert not any("." in choice.message.content for choice in answer.choices)


STORY = {"model": "world", "messages": [{"role": "user", "content": "tell a story about a fox and a robot"}], "seed": 3}
STORY_EXTRA = {"modalities": ["text", "image"], "max_frames": 2}


def test_interleaved_story(client, uni):
    answer = client.chat.completions.create(**STORY, extra_body=STORY_EXTRA)
    content = answer.choices[0].message.content
    kinds = [item["type"] for item in content]
    assert kinds.count("image_url") == 2 and "text" in kinds
    frames = [opened(item["image_url"]["url"]) for item in content if item["type"] == "image_url"]
    alone = [event for event in uni.interleave("tell a story about a fox and a robot", max_frames=2, seed=3)]
    images = [event.image for event in alone if hasattr(event, "image")]
    assert [frame.tobytes() for frame in frames] == [image.tobytes() for image in images]
    told = {"role": "assistant", "content": content}  # goes back as it came
    again = [*STORY["messages"], told, {"role": "user", "content": "what is in the last picture?"}]
    assert client.chat.completions.create(model="world", messages=again).usage.prompt_tokens > 2 * 36


def test_streamed_story_is_the_same_story(client):
    whole = client.chat.completions.create(**STORY, extra_body=STORY_EXTRA).choices[0].message.content
    parts: list[dict] = []
    for chunk in client.chat.completions.create(**STORY, extra_body=STORY_EXTRA, stream=True):
        content = chunk.choices[0].delta.content
        if isinstance(content, list):
            parts += content
        elif content and parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += content
        elif content:
            parts.append({"type": "text", "text": content})
    assert parts == whole


# --- pictures ---


def test_a_picture_over_http_is_the_picture_without_a_server(client, drawn, tmp_path):
    answer = client.images.generate(model="world", prompt=CAT, size="192x192", extra_body={"seed": 5})
    data = base64.b64decode(answer.data[0].b64_json)
    assert data == drawn.save(tmp_path / "drawn.png").read_bytes()
    assert answer.data[0].seed == 5 and answer.data[0].revised_prompt == CAT
    assert answer.size == "192x192" and answer.output_format == "png" and answer.usage.output_tokens == 36


def test_three_pictures_alone_and_in_a_batch_of_other_requests(client):
    def draw(n, seed):
        return [item.b64_json for item in client.images.generate(prompt=CAT, n=n, extra_body={"seed": seed}).data]

    def other(number):
        return client.images.generate(prompt=f"a {('fox', 'robot', 'cat')[number % 3]} on blue").data[0].b64_json

    alone = draw(3, 7)
    assert len(set(alone)) == 3
    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(other, number) for number in range(5)]
        together, single = pool.submit(draw, 3, 7), pool.submit(draw, 1, 8)
        assert together.result() == alone and single.result() == [alone[1]]
        assert all(request.result() for request in crowd)


def test_thinking(client):
    prompt = "two plus three flat lemons"  # something to think about: the shipped model thinks nothing of a plain request
    item = client.images.generate(prompt=prompt, extra_body={"seed": 1, "thinking": True}).data[0]
    assert item.thinking and opened(item.b64_json).size == (192, 192)


def test_streamed_partials(client):
    request = {"prompt": CAT, "extra_body": {"seed": 7}}
    events = list(client.images.generate(stream=True, partial_images=2, **request))
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed" and set(kinds[:-1]) == {"image_generation.partial_image"}
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1)) and len(events) > 1
    assert all(opened(event.b64_json).size == (192, 192) for event in events)
    assert events[-1].b64_json == client.images.generate(**request).data[0].b64_json


def test_edit_by_instruction(client, uni, drawn):
    answer = client.images.edit(
        model="world", image=("cat.png", png(drawn.image)), prompt="replace the cat with a fox", extra_body={"seed": 2}
    )
    alone = uni.edit_image(drawn.image, "replace the cat with a fox", seed=2)
    assert opened(answer.data[0].b64_json).tobytes() == alone.image.tobytes()


def test_edit_with_a_mask(client, uni, drawn):
    mask = Image.new("RGBA", drawn.image.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 64, 64))
    white = mask.getchannel("A").point(lambda level: 255 - level)
    prompt = "a fox and a dog on green"
    request = {"image": io.BytesIO(png(drawn.image)), "mask": io.BytesIO(png(mask)), "prompt": prompt}
    answer = client.images.edit(**request, n=2, extra_body={"seed": 4})
    for number, item in enumerate(answer.data):
        alone = uni.inpaint(drawn.image, white, prompt, seed=4 + number)
        assert opened(item.b64_json).tobytes() == alone.image.tobytes() and item.seed == 4 + number


def test_edit_of_several_pictures_as_a_stream(client, drawn):
    files = [("one.png", png(drawn.image)), ("two.png", png(drawn.image))]
    events = list(client.images.edit(image=files, prompt="put them together", stream=True, extra_body={"seed": 1}))
    assert events[-1].type == "image_edit.completed" and opened(events[-1].b64_json)


# --- errors ---


def test_mistakes_are_bad_requests_in_words(client):
    with pytest.raises(openai.BadRequestError, match="multiple of 32") as wrong_size:
        client.images.generate(prompt=CAT, size="100x100", extra_body={"other_size": "draw"})
    assert "\n" not in wrong_size.value.message
    with pytest.raises(openai.BadRequestError, match="b64_json") as no_files:
        client.images.generate(prompt=CAT, response_format="url")
    assert no_files.value.param == "response_format"
    with pytest.raises(openai.BadRequestError, match="'multipleOf' is not supported"):
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "integer", "multipleOf": 2}}}
        client.chat.completions.create(model="world", messages=[{"role": "user", "content": "x"}], tools=[tool])
    with pytest.raises(openai.BadRequestError, match="multiple of 32"):
        list(client.images.generate(prompt=CAT, size="100x100", stream=True, extra_body={"other_size": "draw"}))
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'") as unknown:
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    assert unknown.value.code == "model_not_found"


def test_a_wrong_key(base):
    with pytest.raises(openai.AuthenticationError, match="API key"):
        OpenAI(base_url=f"{base}/v1", api_key="wrong", max_retries=0).models.list()


def test_too_many_requests():
    service = ScriptedService(until_cancelled, Limits(rate=1))
    with live(create_app(service)) as address:
        client = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.RateLimitError, match="try again in") as limited:
            while True:
                client.models.list()
        assert int(limited.value.response.headers["retry-after"]) >= 1


def test_an_error_in_mid_stream_is_raised():
    def script(job):
        job.emit(TextDelta("a cat"))
        raise Failed("something broke")

    with live(create_app(ScriptedService(script))) as address:
        client = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        stream = client.chat.completions.create(model="llada-uni", messages=STORY["messages"], stream=True)
        with pytest.raises(openai.APIError, match="something broke"):
            list(stream)


def test_the_asynchronous_client(base):
    async def draw_and_chat():
        async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=KEY, timeout=PATIENCE) as client:
            image = client.images.generate(prompt=CAT, extra_body={"seed": 5})
            chat = client.chat.completions.create(model="world", messages=STORY["messages"], max_tokens=8)
            return await asyncio.gather(image, chat)

    image, chat = asyncio.run(draw_and_chat())
    assert opened(image.data[0].b64_json).size == (192, 192) and chat.choices[0].message.role == "assistant"
