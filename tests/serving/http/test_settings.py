"""Settings over HTTP and in the studio's table are those of the requests: every one of them, with the same bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from PIL import Image

from llada_uni.checked import schema_of
from llada_uni.errors import UserError
from llada_uni.requests import Draw, Edit, Inpaint, Request, Story, Understand
from llada_uni.serving.http.protocol.chat import ChatRequest
from llada_uni.serving.http.protocol.images import EditRequest, GenerationRequest
from llada_uni.serving.http.protocol.settings import NOT_IN_THE_TABLE, SettingsBody, optional_fields, table
from llada_uni.serving.http.routes.models import OFFERED
from llada_uni.tasks.defaults import Defaults
from tests.serving.servers import ask, data_uri, error_of, one_picture, scripted, words

RED = Image.new("RGB", (4, 4), "red")
MASK = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
DOORS: dict[type[Request], tuple[str, type[SettingsBody], dict[str, Any]]] = {
    Draw: ("/v1/images/generations", GenerationRequest, {"prompt": "a cat"}),
    Edit: ("/v1/images/edits", EditRequest, {"prompt": "a cat", "image": data_uri(RED)}),
    Inpaint: ("/v1/images/edits", EditRequest, {"prompt": "a cat", "image": data_uri(RED), "mask": data_uri(MASK)}),
    Understand: ("/v1/chat/completions", ChatRequest, HELLO),
    Story: ("/v1/chat/completions", ChatRequest, HELLO | {"modalities": ["text", "image"]}),
}
EVERY = [(kind, name) for kind in DOORS for name in optional_fields(kind)]


def samples(kind: type[Request], name: str) -> tuple[Any, Any]:
    """(a value that is allowed and no default, one that is not) of a setting."""
    schema = schema_of(kind, name)
    if "enum" in schema:
        return schema["enum"][0], "nonsense"
    if schema["type"] == "boolean":
        return True, "yes"
    if schema["type"] == "array":
        return ["a"], [""]
    if schema["type"] == "object":
        return {"alpha": 0.25}, {"alpha": 1.25}
    if schema["type"] == "string":
        return "is it {prompt}?" if name == "judge_question" else "a+", ""
    high = schema["maximum"]
    return high, high + 1


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{kind.__name__}-{name}" for kind, name in EVERY])
def test_every_setting_of_every_request_goes_through_and_is_checked(kind, name):
    path, body, needed = DOORS[kind]
    assert name in body.model_fields
    right, wrong = samples(kind, name)
    service, client = scripted(words if kind in (Understand, Story) else one_picture)
    response = ask(client, path, json=needed | {name: right})
    assert response.status_code == 200, response.text
    taken = getattr(service.requests[0], name)
    assert taken == (kind.model_fields[name].annotation and getattr(_made(kind, **{name: right}), name))
    refused = ask(client, path, json=needed | {name: wrong})
    assert refused.status_code == 400 and error_of(refused)["param"].partition(".")[0] == name, refused.text
    with pytest.raises(UserError, match=name):
        _made(kind, **{name: wrong})


def _made(kind: type[Request], **settings: Any) -> Request:
    """A request with the least it needs."""
    needed = {name: "a cat" for name, field in kind.model_fields.items() if field.is_required()}
    return kind(**needed, **settings)


@pytest.mark.parametrize("kind", OFFERED, ids=lambda kind: kind.__name__)
def test_the_table_has_every_setting_and_its_bounds(kind):
    settings = table(kind, Defaults().of(kind))
    shown = [name for name in optional_fields(kind) if name not in NOT_IN_THE_TABLE]
    assert list(dict.fromkeys(setting.name.partition(".")[0] for setting in settings)) == [
        name for name in kind.settings() if name in shown
    ]
    body = DOORS[kind][1]
    for setting in settings:
        assert setting.title and setting.help and setting.panel, setting
        allowed = setting.choices or [value for value in (setting.minimum, setting.maximum) if value is not None] or [True]
        for value in allowed:
            _check(body, setting.name, value)
        if setting.default is not None:
            _check(body, setting.name, setting.default)
        for value in ["nonsense"] if setting.choices else [setting.minimum - 1, setting.maximum + 1]:
            with pytest.raises(ValueError, match=setting.name.rpartition(".")[2]):
                _check(body, setting.name, value)


def _check(body: type[SettingsBody], name: str, value: Any) -> None:
    """Whether a body takes this value; of a field inside an object, together with what it needs beside it."""
    outer, _, inner = name.partition(".")
    if not inner:
        body.__pydantic_validator__.validate_assignment(body.model_construct(), name, value)
        return
    beside = {"keep_ratio": 0.5} if inner in ("warmup", "image_keep_ratio", "text_keep_ratio") else {}
    body.__pydantic_validator__.validate_assignment(body.model_construct(), outer, {**beside, inner: value})


def test_a_server_shows_no_more_than_it_allows():
    settings = {one.name: one for one in table(Story, Defaults().of(Story), {"max_tokens": 100}, {"decoder": ["base"]})}
    assert settings["max_tokens"].maximum == 100 and settings["decoder"].choices == ["base"]


MADE_UP = """
import importlib.util, json, pathlib, sys
name = "llada_uni.generation.params"
spec = importlib.util.find_spec(name)
source = pathlib.Path(spec.origin).read_text()
field = '    sparkle: Annotated[int, Field(ge=1, le=9)] = Field(3, description="How much it sparkles.")\\n'
assert "    top_k: " in source
module = sys.modules[name] = importlib.util.module_from_spec(spec)
exec(compile(source.replace("    top_k: ", field + "    top_k: ", 1), spec.origin, "exec"), module.__dict__)
import llada_uni.generation
llada_uni.generation.params = module

from llada_uni.requests import Draw, Story
from llada_uni.serving.http.protocol.settings import table
from llada_uni.tasks.defaults import Defaults
from tests.serving.servers import ask, one_picture, scripted

service, client = scripted(one_picture)
document = ask(client, "/openapi.json", "GET").json()["components"]["schemas"]
right = ask(client, "/v1/images/generations", json={"prompt": "a cat", "sparkle": 9})
wrong = ask(client, "/v1/images/generations", json={"prompt": "a cat", "sparkle": 10})
print(json.dumps({
    "openapi": {body: sorted(name for name in document[body]["properties"] if "sparkle" in name)
                for body in ("GenerationRequest", "ChatRequest")},
    "table": [one.model_dump() for one in table(Draw, Defaults().of(Draw)) if one.name == "sparkle"],
    "right": [right.status_code, service.requests[0].sparkle],
    "wrong": [wrong.status_code, wrong.json()["error"]["param"]],
    "python": Story(messages="a", image_sparkle=4).changes(),
}))
"""


def test_a_setting_added_to_params_alone_is_at_every_door():
    """In a process of its own, whose `params` has one line more."""
    done = subprocess.run([sys.executable, "-c", MADE_UP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["openapi"] == {
        "GenerationRequest": ["reasoning_sparkle", "sparkle"], "ChatRequest": ["image_sparkle", "sparkle"],
    }  # fmt: skip
    (row,) = found["table"]
    assert (row["title"], row["help"], row["panel"]) == ("Sparkle", "How much it sparkles.", "Sampling")
    assert (row["kind"], row["minimum"], row["maximum"], row["default"]) == ("integer", 1, 9, 3)
    assert found["right"] == [200, 9] and found["wrong"] == [400, "sparkle"]
    assert found["python"] == {"codes": {"sparkle": 4}}
