"""Commands are listed without being imported, and each listed one is there, with the same first line of help."""

from __future__ import annotations

import pytest

from llada_uni import cli, plugins
from llada_uni.cli.lazy import Stub

NAMES = [*plugins.table("commands"), *cli.COMMANDS]


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_command_is_there_with_the_help_it_is_listed_with(name):
    command = cli.command_line().find(*name.split())
    group = cli.command_line().find(name.split()[0]) if " " in name else cli.command_line()
    stub = group.commands[name.split()[-1]]
    assert isinstance(stub, Stub) and stub.help and command.name == stub.name
    assert command.help.split("\n\n")[0].split() == stub.help.split("\n\n")[0].split()


def test_mistyped_commands_get_a_suggestion(capsys):
    assert cli.main(["genrate"]) == 2 and cli.main(["data", "chek"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean 'generate'" in err and "Did you mean 'check'" in err and err.count("\n") == 2


def test_groups_and_the_program_show_help_without_arguments(capsys):
    assert cli.main([]) == 2 and "generate" in capsys.readouterr().out
    assert cli.main(["data"]) == 2 and "extract" in capsys.readouterr().out
