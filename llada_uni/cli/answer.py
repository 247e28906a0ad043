"""Commands that answer in text: understand and chat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llada_uni.cli.common import (
    Json,
    ModelOptions,
    check_images,
    emit,
    make_folder,
    progress_bar,
    say,
)
from llada_uni.cli.groups import with_groups
from llada_uni.cli.settings import Settings
from llada_uni.errors import UserError
from llada_uni.files.outputs import check_takes_files
from llada_uni.requests import Chat, Understand

if TYPE_CHECKING:
    from llada_uni.model import UniModel
    from llada_uni.results import ChatResult


@with_groups
def understand(
    images: Annotated[list[Path], typer.Argument(help="One or several images.")],
    question: Annotated[
        str, typer.Option("--question", "-q", help="What to ask about them; published models take none as well.")
    ] = "",
    *,
    settings: Annotated[dict[str, Any], Settings(Understand)],
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Answer a question about images; the answer goes to stdout.

    Example: `llada-uni understand fox.png -q "what is at the top left?"`
    """
    check_images(images)
    request = Understand(images=images, question=question, **settings)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.run(request, report)
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
    *,
    settings: Annotated[dict[str, Any], Settings(Chat)],
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Talk about images, turn by turn. In a conversation, `/image FILE` shows an image, `/quit` ends it.

    Example: `llada-uni chat --image fox.png "what is at the top left?" "which style is it?"`

    Example: `llada-uni chat --image fox.png`
    """
    check_images(image or [])
    check_takes_files(out)
    talk = _Talk(Chat(messages=[], **settings), out)
    talk.model = loading.load()
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
    say("Say something; /image FILE shows an image, /quit ends.")
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
    """A conversation. request: the messages so far, and the settings; out: where images are written.

    waiting: images that go with the next turn.
    """

    model: UniModel

    def __init__(self, request: Chat, out: Path) -> None:
        self.request, self.out = request, out
        self.waiting: list[Any] = []
        self.record: list[dict[str, Any]] = []
        self.pictures = 0

    def show(self, path: Path) -> None:
        from llada_uni.tasks.checks import open_picture

        self.waiting.append(open_picture(path))

    def say(self, words: str) -> str:
        """One turn: the answer as a line, with the files of its pictures."""
        asked = {"role": "user", "content": [*self.waiting, words]}
        request = self.request.replace(messages=[*self.request.messages, asked])
        with progress_bar() as report:
            result = self.model.run(request, report)
        self.waiting = []
        answer = {"role": "assistant", "content": list(result.parts)}
        self.request = request.replace(messages=[*request.messages, answer])
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
