"""Commands about words: understand and chat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llada_uni.cli.common import (
    Json,
    ModelOptions,
    Seed,
    Steps,
    emit,
    make_folder,
    progress_bar,
    say,
)
from llada_uni.cli.groups import with_groups
from llada_uni.errors import UserError

if TYPE_CHECKING:
    from llada_uni.model import UniModel
    from llada_uni.results import ChatResult


@with_groups
def understand(
    images: Annotated[list[Path], typer.Argument(help="One or several pictures.")],
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask about them.")],
    max_tokens: Annotated[int | None, typer.Option(help="At most so many tokens of answer.")] = None,
    steps: Steps = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Seed = None,
    *,
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Answer a question about pictures; the answer goes to stdout.

    Example: `llada-uni understand fox.png -q "what is at the top left?"`
    """
    uni = loading.load()
    with progress_bar() as report:
        result = uni.understand(
            images, question, max_tokens, text_steps=steps, temperature=temperature, seed=seed, on_progress=report
        )
    if as_json:
        emit({"images": [str(path) for path in images], "question": question, **result.to_json()})
    else:
        print(result.text)


@with_groups
def chat(
    messages: Annotated[
        list[str] | None, typer.Argument(help="What you say, one turn each; without any, a conversation.")
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture that goes with the first turn.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for pictures in answers.")] = Path(
        "chat"
    ),
    seed: Seed = None,
    *,
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Talk about pictures, turn by turn. In a conversation, `/image FILE` shows a picture, `/quit` ends it.

    Example: `llada-uni chat --image fox.png "what is at the top left?" "which style is it?"`

    Example: `llada-uni chat --image fox.png`
    """
    uni = loading.load()
    talk = _Talk(uni, out, seed)
    for path in image or []:
        talk.show(path)
    if messages:
        for message in messages:
            answer = talk.say(message)
            if not as_json:
                print(answer)
        if as_json:
            emit({"turns": talk.record})
        return
    if as_json:
        raise UserError("--json needs the turns on the command line: llada-uni chat --json 'what is there?'")
    say("Say something; /image FILE shows a picture, /quit ends.")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip() in ("/quit", "/exit"):
            return
        try:
            if line.startswith("/image "):
                talk.show(Path(line.removeprefix("/image ").strip()))
            elif line.strip():
                print(talk.say(line))
        except UserError as error:  # a mistake in a conversation does not end it
            say(f"llada-uni: {error}")


class _Talk:
    """A conversation: messages so far, pictures waiting for the next turn, and where pictures are written."""

    def __init__(self, model: UniModel, out: Path, seed: int | None) -> None:
        self.model, self.out, self.seed = model, out, seed
        self.messages: list[dict[str, Any]] = []
        self.waiting: list[Any] = []
        self.record: list[dict[str, Any]] = []
        self.pictures = 0

    def show(self, path: Path) -> None:
        from llada_uni.image.preprocess import open_image

        self.waiting.append(open_image(path))

    def say(self, words: str) -> str:
        """One turn: the answer as a line, with the files of its pictures."""
        asked = {"role": "user", "content": [*self.waiting, words]}
        with progress_bar() as report:
            result = self.model.chat([*self.messages, asked], seed=self.seed, on_progress=report)
        self.waiting = []
        self.messages += [asked, {"role": "assistant", "content": list(result.parts)}]
        files = self._save(result)
        self.record.append({"user": words, "files": files, **result.to_json()})
        return " ".join([*([result.text] if result.text else []), *(f"[{file}]" for file in files)])

    def _save(self, result: ChatResult) -> list[str]:
        from llada_uni.results import save_image

        files = []
        for picture in result.images:
            self.pictures += 1
            files.append(str(save_image(picture, make_folder(self.out) / f"picture-{self.pictures}.png")))
        return files


def register(app: typer.Typer) -> None:
    for command in (understand, chat):
        app.command()(command)
