"""The command `llada-uni`: parses, calls, prints. Nothing is computed here.

Words on a command line -> one call of the package -> files, a few lines on stderr, and
with `--json` one object on stdout. A user's mistake is one line and exit code 2; a check that fails is exit
code 1. torch is imported inside the commands, so that help answers at once.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Annotated, Any

import typer

from llada_uni import plugins
from llada_uni.cli.lazy import SETTINGS, LazyGroup, make_group
from llada_uni.errors import UserError

app = typer.Typer(
    name="llada-uni",
    help="One block-diffusion model that reads and draws: ask it, let it draw, edit, fill in, tell stories.",
    no_args_is_help=True,
    cls=LazyGroup,
    **SETTINGS,
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


COMMANDS = {
    "generate": "llada_uni.cli.draw:generate",
    "edit": "llada_uni.cli.draw:edit",
    "inpaint": "llada_uni.cli.draw:inpaint",
    "story": "llada_uni.cli.draw:story",
    "understand": "llada_uni.cli.answer:understand",
    "chat": "llada_uni.cli.answer:chat",
    "serve": "llada_uni.cli.serve:serve",
    "encode": "llada_uni.cli.tools:encode",
    "decode": "llada_uni.cli.tools:decode",
    "verify": "llada_uni.cli.tools:verify",
    "convert": "llada_uni.cli.tools:convert",
    "info": "llada_uni.cli.tools:info",
    "eval": "llada_uni.cli.evaluate:evaluate",
    "data check": "llada_uni.cli.data:check",
    "data drafts": "llada_uni.cli.data:drafts",
    "data import": "llada_uni.cli.data_import:import_",
    "data tokenizer": "llada_uni.cli.data:tokenizer",
    "data extract": "llada_uni.cli.data:extract",
    "train": "llada_uni.cli.train:train",
    "recipes": "llada_uni.cli.train:list_recipes",
    "export": "llada_uni.cli.train:export",
    "export-graph": "llada_uni.cli.graphs:export_graph",
    "quantize": "llada_uni.cli.quantize:quantize",
    "pull": "llada_uni.cli.hub:pull",
    "doctor": "llada_uni.cli.hub:doctor",
}
"""Every command, in the order of the help; those of plug-ins come before them. A module is imported when it is called."""
GROUPS = {"data": "Training data: check, make and extract conversation records."}


@cache
def command_line() -> LazyGroup:
    """The whole command line. UserError for a broken plug-in."""
    added = plugins.table("commands")
    first = {name: target for name, target in added.items() if " " not in name}
    return make_group(app, {**first, **COMMANDS, **added}, GROUPS)


INTERRUPTED = 130  # typer turns Ctrl+C into this code
_CLICK_ERROR: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 a check failed, 2 a user's mistake, 130
    interrupted.
    """
    try:
        code = int(command_line()(args=arguments, prog_name="llada-uni", standalone_mode=False) or 0)
        sys.stdout.flush()  # what a reader that has gone does not take is found here, not by Python at its end
        return _complain("interrupted", code) if code == INTERRUPTED else code
    except UserError as error:
        return _complain(str(error))
    except _CLICK_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        context = getattr(error, "ctx", None)
        return _complain(f"{error.format_message()} (see {context.command_path if context else 'llada-uni'} --help)")
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click and rich have met it first, and make this of it
            return _reader_gone()
        raise


def _reader_gone() -> int:
    """The reader of our output has what it wanted (`| head`): nothing is wrong."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _complain(message: str, code: int = 2) -> int:
    print(f"llada-uni: {' '.join(message.split())}", file=sys.stderr)
    return code
