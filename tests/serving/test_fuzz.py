"""Requests that nobody would write, many of them, on a server of the tiny model: made by hypothesis, by schemathesis
from the OpenAPI document, and from broken pictures. Each answer is checked by `attacked.check`; the process must not grow.
"""

from __future__ import annotations

import base64
import gc
import json
import resource
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from llada_uni.generation.params import CONFIDENCES
from llada_uni.generation.unmasking import RULES
from llada_uni.serving.http.protocol.chat import ChatRequest
from llada_uni.serving.http.protocol.images import EditRequest, GenerationRequest
from llada_uni.serving.http.protocol.responses import ResponsesRequest
from tests.serving.attacked import attacked, send
from tests.serving.broken_pictures import bombs, damaged, hidden_bombs, noise, saved
from tests.serving.servers import PATIENCE
from tests.tiny_model import make_tiny_model

CHAT, DRAW, EDIT, RESPONSES = "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/v1/responses"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
GROWTH = 32 * 2**20  # bytes, after a warm-up; measured: 0.4 MiB for 1200 bodies, 5 MiB for 200 broken pictures


@pytest.fixture(scope="module")
def app(tmp_path_factory, golden):
    with attacked(make_tiny_model(tmp_path_factory.mktemp("fuzzed") / "model", golden)) as application:
        yield application


# --- bodies ---

words = st.text(max_size=30) | st.sampled_from(["a cat", "<|mask|>", "<boi>", "\ud800", "auto", "32x32", "turbo", "threshold"])
numbers = st.integers() | st.floats() | st.integers(-2, 9) | st.sampled_from([2**31, 2**63, 1e308, 0.5, 1.0])
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
picture = f"data:image/png;base64,{base64.b64encode(saved(noise(16))).decode()}"
pictures = st.sampled_from([picture, picture[:-9], "data:image/png;base64,", "http://127.0.0.1/a.png", "file:///etc/passwd"])
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, words),
    st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, pictures),
    values,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool"]) | words},
        optional={"content": words | st.lists(parts, max_size=3), "name": words},
    ),
    max_size=4,
)
items = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "developer", "tool"])},
        optional={"content": words | st.lists(parts, max_size=3), "type": st.just("message") | words},
    ),
    st.fixed_dictionaries({"type": st.just("image_generation_call"), "result": words | st.just(picture.partition(",")[2])}),
    values,
)
TOOL = {"type": "image_generation"}
odd_tools = st.dictionaries(words, values, max_size=2).map(lambda more: TOOL | more)
tools = st.just([]) | st.just([TOOL]) | st.lists(odd_tools, max_size=2)
SENSIBLE = {  # what makes a request possible, and short
    "image_steps": st.integers(1, 2),
    "text_steps": st.integers(1, 2),
    "reasoning_steps": st.integers(1, 2),
    "steps": st.integers(1, 2),
    "decoder_steps": st.integers(1, 2),
    "n": st.integers(1, 2),
    "seed": st.integers(0, 9),
    "size": st.just("32x32"),
    "stream": st.booleans(),
    "max_tokens": st.integers(1, 8),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.1, 1),
    "top_k": st.integers(0, 5),
    "threshold": st.floats(0, 1),
    "rule": st.sampled_from(list(RULES)),
    "confidence": st.sampled_from(CONFIDENCES),
    "block_length": st.sampled_from([1, 8, 32]),
    "cfg_scale": st.floats(0, 9),
    "stop": words | st.lists(words, max_size=4),
    "modalities": st.just(["text"]) | st.just(["text", "image"]),
    "max_frames": st.integers(1, 2),
    "partial_images": st.integers(0, 3),
    "progress": st.booleans(),
    "thinking": st.booleans(),
    "sprint": st.just({"r": 0.5}) | values,
    "output_format": st.sampled_from(["png", "jpeg", "webp", "bmp"]),
    "mask_mode": st.sampled_from(["alpha", "white"]),
    "decoder": st.sampled_from(["turbo", "base", "none"]),
    "stream_options": st.just({"include_usage": True}) | values,
}
QUICK = {"image_steps": 1, "decoder_steps": 1}
SHORT = {CHAT: {"max_tokens": 4, "text_steps": 1}, DRAW: QUICK, EDIT: QUICK, RESPONSES: {"max_output_tokens": 4}}
BODIES = {CHAT: ChatRequest, DRAW: GenerationRequest, EDIT: EditRequest, RESPONSES: ResponsesRequest}
FIELDS = {path: [name for name in SENSIBLE if name in body.model_fields] for path, body in BODIES.items()}
CHOICES = (None, "auto", "none", "required", TOOL)
HELLO = st.just([{"role": "user", "content": "what is it?"}])
prompts = st.just("a cat") | words
NEEDED = {
    CHAT: {"messages": HELLO | messages},
    DRAW: {"prompt": prompts},
    RESPONSES: {"input": prompts | st.lists(items, max_size=4), "tools": tools, "tool_choice": st.sampled_from(CHOICES)},
    EDIT: {"prompt": prompts, "image": st.just(picture) | pictures | st.builds(lambda url: {"image_url": url}, pictures)},
}


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """(path, JSON body): nearly right, wrong in a field or two, or wrong altogether."""
    path = draw(st.sampled_from(list(BODIES)))
    if draw(st.integers(0, 9)) == 0:
        return path, to_json(draw(values))
    body = {**SHORT[path], **draw(st.fixed_dictionaries(NEEDED[path]))}
    for name in draw(st.lists(st.sampled_from(FIELDS[path]), max_size=4)):
        body[name] = draw(SENSIBLE[name])
    for name in draw(st.just([]) | st.lists(st.sampled_from([*SENSIBLE, *NEEDED[path], "extra"]), max_size=2)):
        body[name] = draw(values)
    return path, to_json(body)


def to_json(value: object) -> bytes:
    """Also half characters and numbers that JSON has not."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def post(app, path: str, body: bytes):
    return send(app, "POST", path, content=body, headers={"content-type": "application/json"})


def fuzz(app, count: int, derandomize: bool = True) -> dict[int, int]:
    """Posts so many made requests; how often each status was answered."""
    seen: dict[int, int] = {}

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=derandomize,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def one(request: tuple[str, bytes]) -> None:
        status = post(app, *request).status_code
        seen[status] = seen.get(status, 0) + 1

    one()
    return seen


def test_some_made_bodies(app):
    seen = fuzz(app, 60)
    assert seen[200] > 3 and seen[400] > 3, seen


@pytest.mark.slow
def test_a_thousand_made_bodies(app):
    fuzz(app, 1200, derandomize=False)  # until caches and allocators have what they take
    before = used()
    seen = fuzz(app, 1200, derandomize=False)
    assert sum(seen.values()) >= 1000 and seen[200] > 50 and set(seen) <= {200, 400, 413, 415}, seen
    assert used() - before < GROWTH


def used() -> int:
    """Bytes of memory of this process, after what can be freed was freed."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# --- the document ---


def test_the_document_is_true(app):
    call_as_described(app, 4)


@pytest.mark.slow
def test_the_document_is_true_many_times(app):
    call_as_described(app, 110)


def call_as_described(app, count: int) -> None:
    """`count` requests that schemathesis makes for each operation; answers must be as the document says."""
    document = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:

        @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def one(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS, timeout=PATIENCE)

        one()


# --- pictures ---


def try_pictures(app, pictures: list[bytes]) -> int:
    """Asks about each, and edits each; how many were read."""
    read = 0
    for data in pictures:
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        content = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": uri}}]
        body = {"messages": [{"role": "user", "content": content}], **SHORT[CHAT]}
        asked = send(app, "POST", CHAT, json=body)
        form = {"prompt": "a cat", "image_steps": "1", "decoder_steps": "1"}
        edited = send(app, "POST", EDIT, data=form, files={"image": ("a.png", data, "image/png")})
        assert {asked.status_code, edited.status_code} <= {200, 400, 413}
        read += asked.status_code == 200
    return read


def test_some_broken_pictures(app):
    read = try_pictures(app, [data for _, data in damaged(4)])
    assert 0 < read < 30


@pytest.mark.slow
def test_hundreds_of_broken_pictures(app):
    broken = [data for _, data in damaged(30)] + [*bombs().values(), *hidden_bombs().values()]
    assert len(broken) >= 200
    try_pictures(app, broken)  # until caches and allocators have what they take
    before = used()
    try_pictures(app, broken)
    assert used() - before < GROWTH
    assert app.state.context.pictures.held == 0
