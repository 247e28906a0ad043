"""The command `llada-uni`: parses, calls, prints. Nothing is computed here.

What flows through: words on a command line -> one call of the package -> files, a few lines on stderr, and
with `--json` one object on stdout. A user's mistake is one line and exit code 2; a check that fails is exit
code 1. torch is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Annotated

import typer

from llada_uni import plugins
from llada_uni.cli import data, data_import, draw, evaluate, hub, quantize, serve, tools, train, words
from llada_uni.errors import UserError

app = typer.Typer(
    name="llada-uni",
    help="One block-diffusion model that reads and draws: ask it, let it draw, edit, fill in, tell stories.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from llada_uni import __version__

        print(f"llada-uni {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options of the program itself."""


@cache
def command_line() -> typer.Typer:
    """All commands; those of plug-ins come first, so that the demo heads the list. UserError for a broken plug-in."""
    for name in plugins.table("commands"):
        plugins.load("commands", name)(app)
    for module in (draw, words, serve, tools, evaluate, data, data_import, train, quantize, hub):
        module.register(app)
    return app


INTERRUPTED = 130  # typer turns Ctrl+C into this code
_CLICK_ERROR = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 a check failed, 2 a user's mistake, 130
    interrupted.
    """
    try:
        code = int(command_line()(args=arguments, prog_name="llada-uni", standalone_mode=False) or 0)
        return _complain("interrupted", code) if code == INTERRUPTED else code
    except UserError as error:
        return _complain(str(error))
    except _CLICK_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        return _complain(f"{error.format_message()} (see llada-uni --help)")
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone: nothing is wrong with us
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _complain(message: str, code: int = 2) -> int:
    print(f"llada-uni: {' '.join(message.split())}", file=sys.stderr)
    return code
