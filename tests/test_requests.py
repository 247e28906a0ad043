"""Requests: every setting of every task, at the doors of Python and the command line, with an allowed and a forbidden value."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llada_uni import cli
from llada_uni.checked import schema_of
from llada_uni.cli.common import ModelOptions
from llada_uni.errors import UserError
from llada_uni.generation import params
from llada_uni.image.codes import ImageCodes
from llada_uni.requests import REQUESTS, Chat, Draw, Edit, Request, Story, Understand
from llada_uni.tasks.common import settings_of
from llada_uni.tasks.defaults import Defaults
from tests.changed_package import PACKAGE, changed_package, run_there


@pytest.fixture(autouse=True)
def pictures_that_are_there(tmp_path, monkeypatch):
    """Commands look whether an image is there before anything else."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()


CONTENT: dict[str, dict[str, Any]] = {  # what a task is about, without which there is no request
    "draw": {"prompt": "a cat"},
    "edit": {"images": ["a.png"], "instruction": "a dog"},
    "inpaint": {"image": "a.png", "mask": "b.png", "prompt": "a cat"},
    "understand": {"images": ["a.png"], "question": "what?"},
    "chat": {"messages": "hello"},
    "story": {"messages": "a cat"},
    "decode": {"codes": ImageCodes((1,), 1, 1)},
}
COMMANDS = {
    "draw": ["generate", "a cat"],
    "edit": ["edit", "a.png", "-i", "a dog"],
    "inpaint": ["inpaint", "a.png", "b.png", "a cat"],
    "understand": ["understand", "a.png", "-q", "what?"],
    "chat": ["chat", "hello"],
    "story": ["story", "a cat"],
    "decode": ["decode", "codes.json"],
}
EVERY = [(name, setting) for name, kind in REQUESTS.items() for setting in kind.settings()]


HELD: dict[str, Any] = {"regex": "a+b", "json_schema": {"type": "boolean"}, "choices": ("cat", "dog")}  # one of them at most


def together(kind: type[Request]) -> list[str]:
    """The settings that can be given together: without grammars, which exclude one another, stop strings, and images."""
    return [setting for setting in kind.settings() if setting not in HELD]


def allowed_value(kind: type[Request], name: str) -> Any:
    """A value that the schema allows: not the default, so that one that gets lost shows."""
    schema = schema_of(kind, name)
    if name == "modalities":
        return ("image", "text")
    if name in HELD:
        return HELD[name]
    if "enum" in schema:
        return schema["enum"][-1]
    by_type = {"boolean": True, "array": ("END",), "object": params.Sprint(r=0.25), "string": "is it {prompt}?"}
    if schema["type"] in by_type:
        return by_type[schema["type"]]
    return schema["maximum"] if schema["type"] == "integer" else schema["maximum"] / 2


def forbidden_values(kind: type[Request], name: str) -> list[Any]:
    """Values that the schema forbids: one of another type, and those just outside its bounds."""
    schema = schema_of(kind, name)
    if "enum" in schema:
        return ["nothing of the kind", 7]
    if schema["type"] == "boolean":
        return ["yes"]
    if schema["type"] == "array":
        return [[""], 7]
    if name in ("regex", "reasoning_regex"):
        return ["", 7]
    if name == "json_schema":
        return [7, "[", "7"]
    if schema["type"] == "string":
        return ["is it?", 7]
    if schema["type"] == "object":
        return [7, {"share": 1.0}, {"r": 2.0}, "r=x"]
    outside = [schema["maximum"] + 1, "many", [1]]
    if "minimum" in schema:
        outside.append(schema["minimum"] - 1)
    if "exclusiveMinimum" in schema:
        outside.append(schema["exclusiveMinimum"])
    return outside + ([0.5] if schema["type"] == "integer" else [float("nan")])


def as_option(kind: type[Request], name: str, value: Any) -> list[str]:
    """A value as a person types it."""
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    if isinstance(value, tuple | list):
        return [word for one in value for word in (flag, str(one))]
    if isinstance(value, params.Sprint):
        value = ",".join(f"{inner}={number}" for inner, number in value.given().items())
    return [f"{flag}={json.dumps(value) if isinstance(value, dict) else value}"]


@pytest.mark.parametrize(("name", "setting"), EVERY)
def test_python_takes_what_is_allowed_and_says_what_is(name, setting):
    kind = REQUESTS[name]
    value = allowed_value(kind, setting)
    assert getattr(kind(**CONTENT[name], **{setting: value}), setting) == value
    for wrong in forbidden_values(kind, setting):
        with pytest.raises(UserError) as error:
            kind(**CONTENT[name], **{setting: wrong})
        line = str(error.value)
        assert "\n" not in line and line.startswith(setting), line


class Asked(Exception):
    """Carries the request that reached the model."""


class FakeModel:
    def run(self, request: Request, on_progress: Any = None) -> Any:
        raise Asked(request)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """What a command line asks the model for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "codes.json").write_text('{"height": 1, "width": 1, "codes": [1]}')
    monkeypatch.setattr(ModelOptions, "load", lambda self: FakeModel())

    def call(name: str, *arguments: str) -> Request:
        with pytest.raises(Asked) as asked:
            cli.command_line().find(name)(args=list(arguments), standalone_mode=False)
        return asked.value.args[0]

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_take_every_setting(command, name):
    kind = REQUESTS[name]
    given = {setting: allowed_value(kind, setting) for setting in together(kind)}
    out = ["-o", "codes.json"] if given.get("decoder") == params.CODES_ONLY and name != "story" and name != "chat" else []
    options = [word for setting, value in given.items() for word in as_option(kind, setting, value)]
    request = command(*COMMANDS[name], *out, *options)
    assert type(request) is kind
    assert {setting: getattr(request, setting) for setting in given} == given


@pytest.mark.parametrize("setting", HELD)
@pytest.mark.parametrize("name", ["understand", "chat"])
def test_commands_take_a_grammar(command, name, setting, tmp_path):
    request = command(*COMMANDS[name], *as_option(REQUESTS[name], setting, HELD[setting]))
    assert getattr(request, setting) == HELD[setting]
    assert name != "chat" or request.modalities == ("text",)
    if setting == "json_schema":
        (tmp_path / "schema.json").write_text(json.dumps(HELD[setting]))
        assert command(*COMMANDS[name], "--json-schema=@schema.json").json_schema == HELD[setting]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"regex": "a", "choices": ["b"]}, "regex and choices are given; allowed: one of regex, json_schema, choices"),
        ({"regex": "a", "stop": "b"}, "stop would cut what regex asks for"),
        ({"regex": "a", "modalities": ("text", "image")}, "regex is for answers in text"),
        ({"choices": []}, "choices must hold 1 to 1000 strings, none of them empty"),
    ],
)
def test_grammars_exclude_one_another(values, said):
    with pytest.raises(UserError, match=said):
        Chat(messages="hello", **values)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_what_is_forbidden(command, name):
    kind, (first, *rest) = REQUESTS[name], COMMANDS[name]
    there = cli.command_line().find(first)
    for setting in kind.settings():
        flag = f"--{setting.replace('_', '-')}"
        for wrong in forbidden_values(kind, setting):
            if not isinstance(wrong, int | float | str) or schema_of(kind, setting)["type"] in ("boolean", "array"):
                continue  # nothing that a command line can say
            if setting in ("regex", "reasoning_regex") and wrong:
                continue  # nothing that a command line can say
            with pytest.raises((UserError, cli._CLICK_ERROR)) as error:
                there(args=[*rest, f"{flag}={wrong}"], standalone_mode=False)
            line = error.value.format_message() if hasattr(error.value, "format_message") else str(error.value)
            assert setting in line or flag in line, line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_its_help_under_a_heading(name):
    kind = REQUESTS[name]
    made = {option.name: option for option in cli.command_line().find(COMMANDS[name][0]).params}
    for setting in kind.settings():
        words = (kind.model_fields[setting].description or "").removesuffix(".").removesuffix(")")
        assert words and made[setting].help.startswith(words) and made[setting].rich_help_panel == kind.panels[setting]


# --- how a request meets the directory's defaults ---


def test_names_say_what_is_sampled():
    drawn = Draw(prompt="a cat", temperature=0.5, image_steps=3, reasoning_temperature=0.7, reasoning_steps=5)
    assert drawn.changes() == {"codes": {"temperature": 0.5, "steps": 3}, "text": {"temperature": 0.7, "steps": 5}}
    told = Story(messages="a cat", temperature=0.5, text_steps=3, image_temperature=0.7, image_steps=5)
    assert told.changes() == {"text": {"temperature": 0.5, "steps": 3}, "codes": {"temperature": 0.7, "steps": 5}}
    settings = settings_of(told, Defaults().interleave)
    assert (settings.text.steps, settings.text.temperature, settings.text.max_tokens) == (3, 0.5, 2048)
    assert (settings.codes.steps, settings.codes.temperature, settings.codes.threshold) == (5, 0.7, 0.95)


def test_a_rule_brings_its_own_measure():
    own = Defaults.from_json({"generate": {"codes": {"rule": "factor", "confidence": "margin"}}}).generate
    assert settings_of(Draw(prompt="a cat"), own).codes.measure == "margin"
    assert settings_of(Draw(prompt="a cat", rule="entropy"), own).codes.measure == "entropy"
    assert settings_of(Draw(prompt="a cat", confidence="probability"), own).codes.measure == "probability"
    assert params.Sampling(rule="entropy").measure == "entropy" and params.Sampling().measure == "probability"


def test_defaults_of_a_request_by_its_names():
    defaults = Defaults.from_json({"generate": {"codes": {"steps": 3}, "cfg_scale": 3.0}, "decode": {"decoder": "base"}})
    own = defaults.of(Draw)
    assert (own["image_steps"], own["cfg_scale"], own["reasoning_max_tokens"], own["block_length"]) == (3, 3.0, 4096, 32)
    assert (own["decoder"], own["decoder_steps"]) == ("base", 50)
    assert defaults.of(Understand)["text_steps"] == 32 and "height" not in defaults.of(Edit)


@pytest.mark.parametrize("kind", REQUESTS.values())
def test_the_old_name_of_steps_is_an_error_that_names_the_new_one(kind):
    content = CONTENT[kind.__name__.lower()]
    with pytest.raises(UserError, match=r"steps is no setting any more: use (image|text|decoder)_steps"):
        kind(**content, steps=3)


def test_unknown_names_come_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"unknown setting 'tempreature'; did you mean temperature\?"):
        Draw(prompt="a cat", tempreature=1.0)
    with pytest.raises(UserError, match="Draw: prompt is missing"):
        Draw()
    with pytest.raises(UserError, match="prompt is empty"):
        Draw(prompt=" ")


def test_settings_of_images_need_answers_with_images():
    assert Chat(messages="hello", modalities="text", text_steps=3, stop="END", seed=1, block_length=4).modalities == ("text",)
    for setting, value in {"image_steps": 3, "max_frames": 2, "height": 32, "text_scale": 1.0, "decoder": "none"}.items():
        with pytest.raises(UserError, match=f"{setting} is for answers with images"):
            Chat(messages="hello", modalities=("text",), **{setting: value})


def test_a_group_of_settings_may_be_text():
    assert Draw(prompt="a cat", sprint="keep_ratio=0.7, warmup=3").sprint == params.Sprint(keep_ratio=0.7, warmup=3)
    wrong = {"warmup=2.5": "sprint: warmup must be a whole number", "r": "sprint: r must be a number from 0 to 1"}
    for text, line in wrong.items():
        with pytest.raises(UserError, match=line):
            Draw(prompt="a cat", sprint=text)


def test_requests_travel_between_processes():
    for name, kind in REQUESTS.items():
        request = kind(**CONTENT[name], seed=3)
        assert pickle.loads(pickle.dumps(request)) == request
        assert request.replace(seed=4).seed == 4 and request.seed == 3


def test_nothing_slow_is_imported():
    code = "import sys, llada_uni.requests, llada_uni.cli; print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- a new setting ---

MADE_UP = '    patience: Annotated[int, Field(ge=1, le=9)] = Field(3, description="Made up in a test.")\n'
DOORS = """
import json
from llada_uni.generation.settings import Settings
from llada_uni.requests import Chat, Draw, Understand
from llada_uni.tasks.defaults import Defaults
assert Draw(prompt="a", patience=4, reasoning_patience=5).changes() == {"codes": {"patience": 4}, "text": {"patience": 5}}
assert Chat(messages="a", patience=4, image_patience=5).changes() == {"text": {"patience": 4}, "codes": {"patience": 5}}
assert Settings(mask_id=0, patience=4).patience == 4
assert Defaults.from_json({"understand": {"text": {"patience": 7}}}).of(Understand)["patience"] == 7
try:
    Draw(prompt="a", patience=10)
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def with_patience(tmp_path_factory) -> Path:
    """The package with one more setting of sampling: one line of params.py, and all other files as they are."""
    text = (PACKAGE / "generation" / "params.py").read_text(encoding="utf-8")
    begin = '    panel = "Sampling"\n\n    steps:'
    assert text.count(begin) == 1
    new = text.replace(begin, begin.replace("    steps:", f"{MADE_UP}    steps:"))
    return changed_package(tmp_path_factory.mktemp("package"), "generation/params.py", new)


def test_a_new_setting_is_one_line_of_params(with_patience):
    assert run_there(with_patience, "-c", DOORS).strip() == "patience must be a whole number from 1 to 9, not 10"


@pytest.mark.parametrize(("command", "flags"), [("generate", ("", "reasoning-")), ("story", ("", "image-"))])
def test_a_new_setting_has_its_options(with_patience, command, flags):
    shown = run_there(with_patience, "-m", "llada_uni", command, "--help")
    for flag in flags:
        assert f"--{flag}patience" in shown
    assert "Made up in a test" in shown and "1 to 9" in shown
