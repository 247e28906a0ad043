"""Option groups: a command that takes a dataclass has an option for each of its fields."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from llada_uni.cli import command_line, common
from llada_uni.cli.groups import with_groups


@dataclasses.dataclass(frozen=True)
class Size:
    height: Annotated[int, typer.Option(help="Pixels.")] = 5
    fast: Annotated[bool, typer.Option("--fast", help="Hurry.")] = False


def run(command, *arguments):
    alone = typer.Typer()
    alone.command()(command)
    return CliRunner().invoke(alone, list(arguments))


def test_the_fields_become_options_and_the_command_gets_the_dataclass():
    seen = []

    @with_groups
    def draw(prompt: str, *, size: Size, seed: Annotated[int, typer.Option()] = 3) -> None:
        """Draws."""
        seen.append((prompt, size, seed))

    assert run(draw, "a cat", "--height", "7", "--fast", "--seed", "1").exit_code == 0
    assert run(draw, "a cat").exit_code == 0
    assert seen == [("a cat", Size(7, True), 1), ("a cat", Size(), 3)]
    assert "Pixels." in run(draw, "--help").output


def test_one_name_for_two_options_is_refused():
    def draw(*, size: Size, height: Annotated[int, typer.Option()] = 1) -> None:
        """Draws."""

    with pytest.raises(TypeError, match="draw has two options 'height'"):
        with_groups(draw)


LOADING = ("demo", "generate", "edit", "inpaint", "story", "understand", "chat", "encode", "decode", "eval", "serve")


@pytest.mark.parametrize("command", LOADING)
def test_every_command_that_loads_a_model_takes_all_options_of_loading(command):
    click_command = command_line().find(command)
    names = {parameter.name for parameter in click_command.params}
    assert {field.name for field in dataclasses.fields(common.ModelOptions)} <= names


def test_the_options_of_loading_reach_from_pretrained(monkeypatch):
    from llada_uni import model

    calls = []
    monkeypatch.setattr(model.UniModel, "from_pretrained", lambda *given, **more: calls.append((given, more)))
    common.ModelOptions(model="world", quantization="int4", offload=True, tile=64).load()
    common.ModelOptions().load()
    assert calls == [(("world",), {"quantization": "int4", "offload": True, "tile": 64}), ((None,), {"offload": False})]
