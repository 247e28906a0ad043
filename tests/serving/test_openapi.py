"""/openapi.json: complete, true to the bodies that are checked, and to be had without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from llada_uni.serving.http.protocol.chat import ChatRequest
from llada_uni.serving.http.protocol.images import EditRequest, GenerationRequest
from tests.serving.servers import ask, scripted, words

ROUTES = {
    "/health", "/ready", "/metrics", "/v1/models", "/v1/models/{name}", "/v1/llada/defaults", "/v1/chat/completions",
    "/v1/images/generations", "/v1/responses", "/v1/images/edits", "/v1/llada/streams/{name}",
}  # fmt: skip


@pytest.fixture(scope="module")
def document():
    return ask(scripted(words)[1], "/openapi.json", "GET").json()


def test_every_route_is_there(document):
    assert set(document["paths"]) == ROUTES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert {"200", "4XX", "5XX"} <= set(operation["responses"]), path
            assert "422" not in operation["responses"]


def test_every_reference_leads_somewhere(document):
    references = set(_references(document))
    assert references >= {"#/components/schemas/ChatRequest", "#/components/schemas/ImageReference"}
    for reference in references:
        at = document
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]


def _references(node):
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _references(item)


def test_bodies_of_edits(document):
    content = document["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    form = content["multipart/form-data"]["schema"]["properties"]
    assert form["mask"] == {"type": "string", "format": "binary"} and "image[]" in form and "prompt" in form


def test_streams_are_told_of(document):
    for path in ("/v1/chat/completions", "/v1/images/generations", "/v1/responses", "/v1/images/edits"):
        assert "text/event-stream" in document["paths"][path]["post"]["responses"]["200"]["content"]


def test_a_key_is_told_of_where_one_is_needed():
    secured = ask(scripted(words, api_keys=("k",))[1], "/openapi.json", "GET", headers={"authorization": "Bearer k"}).json()
    assert secured["paths"]["/v1/chat/completions"]["post"]["security"]
    assert "security" not in secured["paths"]["/health"]["get"]


def test_answers_fit_their_schema(document):
    answer = ask(scripted(words)[1], "/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}).json()
    schema = document["components"]["schemas"]["ChatCompletion"]
    assert set(answer) | {"warnings"} == set(schema["properties"])  # there are some on a lenient server alone
    assert set(answer) >= set(schema["required"])


@pytest.mark.parametrize("model", [ChatRequest, GenerationRequest, EditRequest])
def test_fields_without_a_default_are_the_needed_ones(model):
    needed = model.model_json_schema()["required"]
    assert needed == (["messages"] if model is ChatRequest else ["prompt"])
    with pytest.raises(ValidationError):
        model.model_validate({})


def test_the_application_needs_no_torch():
    code = "import sys, llada_uni.serving.http.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"fastapi", "PIL"} <= set(done.stdout.split()) and not {"torch", "transformers"} & set(done.stdout.split())
